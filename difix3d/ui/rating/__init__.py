"""The rating screen: its addresses on the server (routes), and what the browser runs (the .js, .css, .html here)."""
