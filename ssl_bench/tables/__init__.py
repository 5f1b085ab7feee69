"""Records to tables: names, paired differences, typesetting, one page."""
