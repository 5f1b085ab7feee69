"""Photographs and masks in parallel folders."""
