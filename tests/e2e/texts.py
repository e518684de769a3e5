"""Prompts with a known shape."""

SUBJECTS = ("The librarian", "A young cartographer", "The night watchman", "An old printer", "The visiting botanist", "Her apprentice",
            "The harbour pilot", "A travelling clockmaker")
ACTIONS = ("catalogued the maps of the northern coast", "repaired the brass lamp by the window", "copied a letter about the flood",
           "measured the shadow of the tower at noon", "hid a silver key behind the atlas", "painted the shutters dark green",
           "read aloud from a book about bees", "counted the ships that waited outside the reef", "boiled water for tea",
           "folded a paper boat for the child", "wrote the date on the wall in chalk")


def story(sentences=92, seed=0):
    """Plain English, different for each seed from its first sentence on; 92 sentences are about 1,500 tokens of SmolLM2."""
    lines = []
    for number in range(sentences):
        subject = SUBJECTS[(number * 5 + seed) % len(SUBJECTS)]
        action = ACTIONS[(number * 7 + seed * 3) % len(ACTIONS)]
        lines.append(f"{subject} {action} on day {seed * 1000 + number}.")
    return " ".join(lines)
