"""Tax: gains that plans realise, and the limit of a year ([tax])."""
