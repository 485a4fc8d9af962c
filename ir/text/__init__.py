"""The text form of the IR: prints and parses back identically, with located errors."""
