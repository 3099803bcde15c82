"""The page's first screen: one figure, three cards, what to do next and which run to take."""
