"""Source, headers and patches in; images and modules out."""
