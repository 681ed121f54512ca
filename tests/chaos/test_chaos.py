"""The campaign of `make chaos`, short."""

from tests.chaos.campaign import Campaign
from tests.chaos.region import Region

SEED = 3
KILLS = 14


def test_no_kill_loses_or_disorders_anything() -> None:
    campaign, region = Campaign(KILLS, SEED), Region()
    try:
        verdict = campaign.run(region)
    finally:
        region.close()
    print(campaign.last_line(verdict))
    assert verdict.wrong == []
    assert verdict.accepted > 1_000
    assert sum(campaign.killed.values()) == KILLS
    assert campaign.killed["router"] > 1
