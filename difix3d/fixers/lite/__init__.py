"""A small convolutional fixer that ships with the project: photos blended by learned weights. See README.md."""
