"""Software pipelining and warp specialization as one exact problem."""
