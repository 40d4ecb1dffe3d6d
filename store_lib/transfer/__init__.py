"""The engine through which every byte goes, in and out."""
