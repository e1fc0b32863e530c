"""The same scenes described in German, French, Spanish and Italian, with agreement of gender."""

from __future__ import annotations

import numpy as np

from curate.demo.scenes import Scene

# object -> (gender, noun); gender m, f or n
_NOUNS: dict[str, dict[str, tuple[str, str]]] = {
    "de": {
        "circle": ("m", "Kreis"),
        "square": ("n", "Quadrat"),
        "triangle": ("n", "Dreieck"),
        "star": ("m", "Stern"),
        "heart": ("n", "Herz"),
        "house": ("n", "Haus"),
        "tree": ("m", "Baum"),
        "fish": ("m", "Fisch"),
        "car": ("n", "Auto"),
        "flower": ("f", "Blume"),
    },
    "fr": {
        "circle": ("m", "cercle"),
        "square": ("m", "carré"),
        "triangle": ("m", "triangle"),
        "star": ("f", "étoile"),
        "heart": ("m", "cœur"),
        "house": ("f", "maison"),
        "tree": ("m", "arbre"),
        "fish": ("m", "poisson"),
        "car": ("f", "voiture"),
        "flower": ("f", "fleur"),
    },
    "es": {
        "circle": ("m", "círculo"),
        "square": ("m", "cuadrado"),
        "triangle": ("m", "triángulo"),
        "star": ("f", "estrella"),
        "heart": ("m", "corazón"),
        "house": ("f", "casa"),
        "tree": ("m", "árbol"),
        "fish": ("m", "pez"),
        "car": ("m", "coche"),
        "flower": ("f", "flor"),
    },
    "it": {
        "circle": ("m", "cerchio"),
        "square": ("m", "quadrato"),
        "triangle": ("m", "triangolo"),
        "star": ("f", "stella"),
        "heart": ("m", "cuore"),
        "house": ("f", "casa"),
        "tree": ("m", "albero"),
        "fish": ("m", "pesce"),
        "car": ("f", "macchina"),
        "flower": ("m", "fiore"),
    },
}
# colour -> (masculine, feminine)
_COLOURS: dict[str, dict[str, tuple[str, str]]] = {
    "fr": {
        "red": ("rouge", "rouge"),
        "green": ("vert", "verte"),
        "blue": ("bleu", "bleue"),
        "yellow": ("jaune", "jaune"),
        "purple": ("violet", "violette"),
        "orange": ("orange", "orange"),
        "white": ("blanc", "blanche"),
        "black": ("noir", "noire"),
    },
    "es": {
        "red": ("rojo", "roja"),
        "green": ("verde", "verde"),
        "blue": ("azul", "azul"),
        "yellow": ("amarillo", "amarilla"),
        "purple": ("morado", "morada"),
        "orange": ("naranja", "naranja"),
        "white": ("blanco", "blanca"),
        "black": ("negro", "negra"),
    },
    "it": {
        "red": ("rosso", "rossa"),
        "green": ("verde", "verde"),
        "blue": ("blu", "blu"),
        "yellow": ("giallo", "gialla"),
        "purple": ("viola", "viola"),
        "orange": ("arancione", "arancione"),
        "white": ("bianco", "bianca"),
        "black": ("nero", "nera"),
    },
}
_GERMAN_STEMS = {
    "red": "rot",
    "green": "grün",
    "blue": "blau",
    "yellow": "gelb",
    "purple": "violett",
    "orange": "orangefarben",
    "white": "weiß",
    "black": "schwarz",
}
_GERMAN_ENDINGS = {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")}
_ARTICLES = {"fr": ("un", "une"), "es": ("un", "una"), "it": ("un", "una")}

_SENTENCES: dict[str, tuple[str, ...]] = {
    "de": (
        "Auf diesem Bild ist {a} zu sehen, aufgenommen an einem sonnigen Nachmittag",
        "Hier steht {a} vor einer hellen Wand in unserem Garten",
        "{a}, gemalt von den Kindern der Grundschule für das Sommerfest",
        "So sieht {a} aus, wenn man genau hinsieht und nicht blinzelt",
        "{a}, jetzt neu in unserem Laden und ohne Versandkosten",
    ),
    "fr": (
        "Sur cette photo on peut voir {a} devant un mur clair",
        "Voici {a} que l'on peut admirer pendant les vacances à la mer",
        "{a}, un dessin des enfants de l'école pour la fête du village",
        "Une belle image avec {a}, prise un après-midi dans le jardin",
        "{a}, maintenant disponible dans notre boutique avec livraison gratuite",
    ),
    "es": (
        "En esta foto se puede ver {a} delante de una pared clara",
        "Aquí tenemos {a} que se puede admirar durante las vacaciones en la playa",
        "{a}, un trabajo de los niños de la escuela para la fiesta del pueblo",
        "Una bonita imagen con {a}, tomada una tarde en el jardín",
        "{a}, ahora disponible en nuestra tienda con envío gratuito",
    ),
    "it": (
        "In questa foto si può vedere {a} davanti a una parete chiara",
        "Ecco {a} che si può ammirare durante le vacanze al mare",
        "{a}, un lavoro dei bambini della scuola per la festa del paese",
        "Una bella immagine con {a}, scattata un pomeriggio nel giardino",
        "{a}, adesso disponibile nel nostro negozio con spedizione gratuita",
    ),
}
LANGUAGES: tuple[str, ...] = tuple(_SENTENCES)


def _phrase(language: str, shape: str, colour: str) -> str:
    gender, noun = _NOUNS[language][shape]
    if language == "de":
        article, ending = _GERMAN_ENDINGS[gender]
        return f"{article} {_GERMAN_STEMS[colour]}{ending} {noun}"
    which = 0 if gender == "m" else 1
    return f"{_ARTICLES[language][which]} {noun} {_COLOURS[language][colour][which]}"


def foreign(scene: Scene, language: str, rng: np.random.Generator) -> str:
    """A true caption of the scene's main object in one of `LANGUAGES`."""
    main = scene.groups[0]
    sentences = _SENTENCES[language]
    sentence = sentences[int(rng.integers(len(sentences)))].format(a=_phrase(language, main.shape, main.colour))
    return sentence[0].upper() + sentence[1:]
