"""`agentd doctor`: what is wrong here, and what to do. It changes, locks and starts nothing."""
