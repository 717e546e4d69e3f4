"""The courtyard of make_courtyard.py: shapes, materials and where everything stands. Needs Blender's `bpy`."""
