"""A request becomes a principal: credentials are known in this room alone, and answered for from memory."""
