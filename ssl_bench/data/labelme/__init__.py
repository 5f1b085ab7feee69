"""Sets in the format of LabelMe."""
