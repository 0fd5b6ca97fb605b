from deltawheel.contracts.promotion import Promotion
from tests.records import a_cycle, a_promotion, seconds


def test_one_cycle_promotes_one_version_once_whenever_it_is_said() -> None:
    again = a_promotion(replaces="3", promoted_at=seconds(99))
    assert again.promotion_id == a_promotion().promotion_id


def test_other_cycle_version_or_model_is_another_promotion() -> None:
    renamed = Promotion(**{**dict(a_promotion()), "model_name": "deltawheel-other"})
    promotions = [a_promotion(), a_promotion(a_cycle("second")), a_promotion(version="2"), renamed]
    assert len({promotion.promotion_id for promotion in promotions}) == len(promotions)
