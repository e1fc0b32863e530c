"""What may be wrong with a written caption, one file each: `NAME.py` holds the class `Name`."""
