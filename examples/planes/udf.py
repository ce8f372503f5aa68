"""Age, fuel and size of the planes; trips over the records that are not in order, which udf_mended.py puts right."""

FUELS = {"Turbo-fan": "kerosene", "Turbo-jet": "kerosene", "Turbo-prop": "kerosene", "Turbo-shaft": "kerosene"}


def plane(tailnum: str, year: str, engine: str, engines: int, seats: int) -> dict[str, object]:
    """Describe one plane as of 2013."""
    return {"age": 2013 - int(year), "fuel": FUELS[engine], "seats_per_engine": seats / engines}
