"""Labels for features, and what they are worth: prompts, answers, descriptions, prices. Pure, standard library only."""
