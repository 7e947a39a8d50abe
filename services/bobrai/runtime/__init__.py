"""How a process lives: signals, drain, loops that survive outages, group commit, the small health port."""
