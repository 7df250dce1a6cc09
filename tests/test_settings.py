from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import SettingError
from include.settings import Settings, late_after

_OUTPUT_DEAD_LETTERS = "FRAUD_OUTPUT_DEAD_LETTER_TOPIC"


def test_defaults_apply_if_no_variable_is_set():
    settings = Settings.from_environment({"AIRFLOW_HOME": "/srv/airflow"})
    assert (settings.input_topic, settings.output_topic) == ("topic_1", "topic_2")
    assert settings.dead_letter_topic == "topic_1_dead_letters"
    assert settings.group == "fraud_scoring"
    assert settings.model == "latest"
    assert settings.staging_url == "/srv/airflow/fraud/staging"
    assert settings.recipients == ()
    assert settings.mask_cards is True


def test_empty_variable_counts_as_unset():
    assert Settings.from_environment({"FRAUD_GROUP": " ", "FRAUD_MAX_PAYMENTS": ""}).group == "fraud_scoring"


@pytest.mark.parametrize("text", ["a@x.org,b@x.org", "a@x.org; b@x.org", " a@x.org  b@x.org "])
def test_commas_semicolons_and_spaces_separate_recipients(text: str):
    assert Settings.from_environment({"EMAIL_RECIPIENT": text}).recipients == ("a@x.org", "b@x.org")


@pytest.mark.parametrize(
    "text",
    [
        "Fraud Team <a@x.org>, b@x.org",
        '"Doe, Jane; Dr" <a@x.org>; Bo <b@x.org>,',
        "Ann <a@x.org> b@x.org",
        "a@x.org Bo <b@x.org>",
        "a@x.org, , b@x.org",
    ],
)
def test_recipients_may_have_names(text: str):
    assert Settings.from_environment({"EMAIL_RECIPIENT": text}).recipients == ("a@x.org", "b@x.org")


@pytest.mark.parametrize("text", ["nobody", "a@x.org nobody", "Ann a@x.org", "a@@x.org", "@x.org", "Doe, Jo <a@x.org>"])
def test_invalid_address_fails_only_the_property_that_uses_it(text: str):
    settings = Settings.from_environment({"EMAIL_RECIPIENT": text, "FRAUD_OPERATORS_EMAIL": text})
    assert settings.group == "fraud_scoring"
    for name, read in (("EMAIL_RECIPIENT", "recipients"), ("FRAUD_OPERATORS_EMAIL", "operators")):
        with pytest.raises(SettingError, match=name) as error:
            getattr(settings, read)
        assert text in str(error.value)


def test_domain_beyond_ascii_is_encoded_by_idna_2008():
    """IDNA 2003 turns straße into strasse, which is another domain."""
    text = "a@bänk.test; Jörg Müller <j@STRAßE.test>"
    assert Settings.from_environment({"EMAIL_RECIPIENT": text}).recipients == (
        "a@xn--bnk-qla.test",
        "j@xn--strae-oqa.test",
    )


@pytest.mark.parametrize("address", ["prüfer@x.org", "a@-ä.test", "a@💶.test"])
def test_error_names_address_that_mail_cannot_be_sent_to(address: str):
    settings = Settings.from_environment({"EMAIL_RECIPIENT": f"b@x.org, {address}"})
    with pytest.raises(SettingError, match=f"EMAIL_RECIPIENT: mail cannot be sent to {address}: "):
        assert settings.recipients


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAUD_MAX_PAYMENTS", "many"),
        ("FRAUD_MAX_PAYMENTS", "0"),
        ("FRAUD_MAX_SECONDS", "301"),
        ("FRAUD_STAGING_HOURS", "inf"),
        ("FRAUD_STAGING_HOURS", "99999999"),
        ("FRAUD_LATE_MINUTES", "9999999999"),
        ("FRAUD_MASK_CARDS", "maybe"),
        ("FRAUD_MODEL_CACHE", "~nobody-of-this-name/models"),
    ],
)
def test_error_names_invalid_value_and_usable_replaces_it(name: str, value: str):
    with pytest.raises(SettingError, match=name) as error:
        Settings.from_environment({name: value})
    assert value in str(error.value)
    settings = Settings.usable({name: value, "FRAUD_OPERATORS_EMAIL": "a@x.org", "AIRFLOW_HOME": "/srv/airflow"})
    assert settings == Settings.from_environment({"FRAUD_OPERATORS_EMAIL": "a@x.org", "AIRFLOW_HOME": "/srv/airflow"})


def test_every_number_has_an_upper_bound():
    settings = Settings.from_environment({})
    numbers = [name for name in Settings.model_fields if type(getattr(settings, name)) in (int, float)]
    assert "staging_hours" in numbers
    for name in numbers:
        variable = f"FRAUD_{name.upper()}"
        with pytest.raises(SettingError, match=rf"^{variable}='1e\+16': too large; give [\d.]+ to \d+( [a-zA-Z ]+)?$"):
            Settings.from_environment({variable: "1e+16"})


def test_largest_durations_can_be_subtracted_from_today():
    hours = {"FRAUD_STAGING_HOURS": "87600", "FRAUD_TOPIC_RETENTION_HOURS": "87600", "FRAUD_REMINDER_HOURS": "8760"}
    days = {"FRAUD_LOG_DAYS": "36500", "FRAUD_HISTORY_DAYS": "36500"}
    settings = Settings.from_environment(hours | days)
    longest = timedelta(hours=max(settings.staging_hours, settings.record_hours), days=settings.log_days)
    assert datetime.now(UTC) - longest - timedelta(days=settings.history_days) < datetime.now(UTC)


@pytest.mark.parametrize(("value", "minutes"), [("", 15), ("7", 7), ("soon", 15), ("9999999999", 15), ("1e300", 15)])
def test_late_after_uses_default_for_invalid_value(value: str, minutes: float):
    assert late_after({"FRAUD_LATE_MINUTES": value, "EMAIL_RECIPIENT": "nobody"}) == timedelta(minutes=minutes)


@pytest.mark.parametrize("name", ["FRAUD_OUTPUT_TOPIC", "FRAUD_DEAD_LETTER_TOPIC", "FRAUD_OUTPUT_DEAD_LETTER_TOPIC"])
def test_no_other_topic_may_be_the_input_topic(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} and FRAUD_INPUT_TOPIC are both topic_1"):
        Settings.from_environment({name: "topic_1"})


def test_output_dead_letter_topic_must_differ_from_output_topic() -> None:
    with pytest.raises(SettingError, match="FRAUD_OUTPUT_DEAD_LETTER_TOPIC and FRAUD_OUTPUT_TOPIC are both scored"):
        Settings.from_environment({"FRAUD_OUTPUT_TOPIC": "scored", "FRAUD_OUTPUT_DEAD_LETTER_TOPIC": "scored"})
    assert Settings.from_environment({"FRAUD_OUTPUT_TOPIC": "scored"}).output_dead_letter_topic == "scored_dead_letters"


@pytest.mark.parametrize(
    "given",
    [
        {"FRAUD_DEAD_LETTER_TOPIC": "topic_2"},
        {"FRAUD_OUTPUT_TOPIC": "topic_1_dead_letters"},
        {"FRAUD_DEAD_LETTER_TOPIC": " scored ", "FRAUD_OUTPUT_TOPIC": "scored"},
    ],
)
def test_dead_letter_topic_must_differ_from_output_topic(given: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=r"FRAUD_DEAD_LETTER_TOPIC and FRAUD_OUTPUT_TOPIC are both \w+: readers of"):
        Settings.from_environment(given)


@pytest.mark.parametrize("given", [{"FRAUD_LEDGER_GROUP": "fraud_scoring"}, {"FRAUD_GROUP": "fraud_ledger"}])
def test_ledger_group_must_differ_from_scoring_group(given: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="FRAUD_LEDGER_GROUP and FRAUD_GROUP are both fraud_"):
        Settings.from_environment(given)


def test_both_dead_letter_topics_may_be_the_same() -> None:
    """The header with a dead letter's source names the topic that it came from."""
    shared = Settings.from_environment(dict.fromkeys(("FRAUD_DEAD_LETTER_TOPIC", _OUTPUT_DEAD_LETTERS), "dead"))
    assert shared.dead_letter_topic == shared.output_dead_letter_topic == "dead"
