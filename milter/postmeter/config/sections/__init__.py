"""The sections of the configuration, a frozen dataclass each; `schema` gathers them."""
