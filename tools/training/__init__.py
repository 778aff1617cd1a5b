"""How each shipped prior is trained on the pool, and what is said of it on clips that it has not seen."""
