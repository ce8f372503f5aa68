"""Age, fuel and size of the planes, with a word for those whose year is not known and those that burn avgas."""

FUELS = {
    "Turbo-fan": "kerosene",
    "Turbo-jet": "kerosene",
    "Turbo-prop": "kerosene",
    "Turbo-shaft": "kerosene",
    "Reciprocating": "avgas",
    "4 Cycle": "avgas",
}


def plane(tailnum: str, year: str, engine: str, engines: int, seats: int) -> dict[str, object]:
    """Describe one plane as of 2013."""
    age = None if year == "NA" else 2013 - int(year)
    return {"age": age, "fuel": FUELS[engine], "seats_per_engine": seats / engines}
