"""What every group of settings is: read from the environment, and never changed."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Group(BaseSettings):
    """Settings that belong together and begin with the same words."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")
