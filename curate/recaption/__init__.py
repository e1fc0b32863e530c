"""Recaptioning: new captions for the samples whose own is poor, checked, scored and mixed with the originals."""
