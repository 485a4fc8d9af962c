"""Going on after nodes are lost or slow: new degrees, seats that keep most bytes in place, transfers."""
