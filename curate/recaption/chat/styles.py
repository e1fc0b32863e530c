"""Ways to rewrite a caption, each with examples of ours: what the language model is shown and told.

LaCLIP (Fan et al. 2023, arXiv:2305.20088) rewrites each caption in several styles, each taught by pairs of a
caption and its rewriting that stand before it: a single style makes a set of texts alike. The pairs here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """What is asked for, and pairs (caption as found, rewritten)."""

    asks: str
    pairs: tuple[tuple[str, str], ...]


STYLES: dict[str, Style] = {
    "plain": Style(
        "Rewrite the caption as a person would say it in one plain sentence, without file names, prices, codes or "
        "calls to buy.",
        (
            ("red-canvas-sneaker_mens-sz9 | FREE SHIPPING", "A red canvas sneaker for men."),
            ("IMG_2291 lake sunset oct", "A lake at sunset in October."),
            ("Oak Dining Table Set w/ 4 Chairs - Save 30% Today!", "An oak dining table with four chairs."),
            ("golden retriever puppy, stock photo 88123", "A golden retriever puppy."),
            ("Harbour of Bergen (Norway), by night", "The harbour of Bergen in Norway at night."),
            ("my sister baking bread!!! #sunday", "A woman baking bread on a Sunday."),
            ("Vintage 1962 tractor restored", "A restored tractor from 1962."),
            ("recipe: lentil soup w carrots", "Lentil soup with carrots."),
        ),
    ),
    "scene": Style(
        "Rewrite the caption as a short description of a scene: who or what is there, doing what, and where, as far as "
        "the caption says it.",
        (
            ("kids soccer practice Tuesday", "Children practising soccer together on a Tuesday."),
            ("old fisherman mending nets, Sicily", "An old fisherman sits in Sicily and mends his nets."),
            ("Black cat windowsill", "A black cat on a windowsill."),
            ("commuters at the station during rain", "Commuters make their way through a station while it rains."),
            ("two mugs of cocoa and a book", "Two mugs of cocoa stand next to a book."),
            ("Street musician with accordion in Prague", "A street musician plays the accordion in Prague."),
            ("surfer, early morning", "A surfer out early in the morning."),
            ("wedding cake with fresh figs", "A wedding cake decorated with fresh figs."),
        ),
    ),
    "rich": Style(
        "Rewrite the caption in one fuller sentence with other words and another order, keeping every fact and adding "
        "none that the caption does not hold.",
        (
            (
                "steam train crossing a viaduct",
                "High on a viaduct, a train drawn by a steam engine makes its crossing.",
            ),
            ("handmade blue ceramic bowl", "A bowl of blue ceramic, shaped and finished by hand."),
            ("elderly couple dancing in the park", "In the park, a couple of advanced years share a dance."),
            ("modern kitchen with white cabinets", "White cabinets line a kitchen furnished in a modern style."),
            ("mountain goat on a cliff", "A goat of the mountains keeps its footing on the side of a cliff."),
            ("snow-covered village church", "The church of a village, lying under a cover of snow."),
            ("bicycle leaning against brick wall", "Against a wall of bricks leans a bicycle."),
            ("farmer holding a basket of apples", "A basket filled with apples rests in the hands of a farmer."),
        ),
    ),
    "short": Style(
        "Rewrite the caption as a noun phrase of three to eight words that names what is shown.",
        (
            ("This is a photo of our new office building downtown, finished in 2014", "a new downtown office building"),
            ("Buy Ladies Waterproof Hiking Jacket Green Size M online", "a green waterproof hiking jacket"),
            ("A group of tourists are looking at the ruins of the temple", "tourists at the ruins of a temple"),
            (
                "Homemade pizza with mushrooms and basil that I made last night",
                "homemade pizza with mushrooms and basil",
            ),
            ("The white lighthouse on the rocks near the entrance to the bay", "a white lighthouse on the rocks"),
            ("Toddler laughing while playing with wooden blocks", "a laughing toddler with wooden blocks"),
            ("A close-up of a bee that is sitting on a lavender flower", "a bee on a lavender flower"),
            ("Portrait of the violinist before her concert in Vienna", "a violinist before a concert"),
        ),
    ),
}
