"""What machines with a GPU cost, so that nobody is surprised by a training job.

On-demand list prices of us-east-1, in USD an hour, as they were published in 2025. They change rarely; other regions
differ. https://aws.amazon.com/ec2/pricing/on-demand/ and https://aws.amazon.com/sagemaker/pricing/
"""

from dataclasses import dataclass
from typing import Final

ON_DEMAND_USD_PER_H: Final = {
    "g4dn.xlarge": 0.526,
    "g5.xlarge": 1.006,
    "g6.xlarge": 0.805,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
}


@dataclass(frozen=True)
class Quote:
    """What a job can cost at most: the whole of its time limit, on the dearest machine it may be given."""

    instance_types: tuple[str, ...]
    limit_s: int
    machines: int = 1
    spot_usd_per_h: float | None = None  #: of the same machine now, where it can be asked for

    @property
    def usd_per_h(self) -> float | None:
        """Of all machines together, on demand; None where the price of one is not known here."""
        known = [ON_DEMAND_USD_PER_H.get(kind) for kind in self.instance_types]
        prices = [price for price in known if price is not None]
        return max(prices) * self.machines if prices and len(prices) == len(known) else None

    def lines(self) -> list[str]:
        """For a person, before they say yes."""
        hours = self.limit_s / 3600
        said = [f"On {' or '.join(self.instance_types)}, for {hours:.1f} h at most."]
        price = self.usd_per_h
        if price is None:
            said.append("Its price is not known here: see https://aws.amazon.com/ec2/pricing/on-demand/")
            return said
        said.append(f"On demand ${price:.2f} an hour in us-east-1, so ${price * hours:.2f} at most.")
        if self.spot_usd_per_h is not None:
            spot = self.spot_usd_per_h * self.machines
            saved = max(0.0, 1 - spot / price)
            said.append(f"On Spot ${spot:.2f} an hour now, {saved:.0%} less: ${spot * hours:.2f} at most.")
        return said
