"""Files of the Hugging Face Hub: of one repository at one commit, resumed where they stopped, and checked.

files.py     what a repository holds, what of it is in the local cache, and room for the rest
transfer.py  one file, or a part of one, from the Hub to this machine
tensors.py   some tensors of a safetensors file, without the rest of it
refusals.py  what can go wrong, as a CheckpointError that says what to do
"""
