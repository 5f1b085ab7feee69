"""PASCAL VOC's layout, and its official sets."""
