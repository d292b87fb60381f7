"""The process: its cores and threads, what it says on a terminal, names that are loaded when first used."""
