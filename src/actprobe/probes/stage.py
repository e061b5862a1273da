"""The version of the stage: what rows say, and how fits are made where no recipe says it."""

VERSION = 4
