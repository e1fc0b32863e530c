"""Who writes captions, one file each: `NAME.py` holds the class `Name`."""
