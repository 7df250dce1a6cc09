"""The errors that this product raises on purpose.

FraudError
├── SettingError *
├── RunConfigurationError *
├── ClusterError
│   ├── ClusterAccessError *
│   ├── GroupInUseError
│   ├── OffsetsChangedError *
│   ├── TopicChangedError *
│   ├── HangingTransactionError
│   └── BrokerUnresponsiveError
├── ModelError *
│   ├── ModelNotFoundError *
│   ├── ModelRequirementsError *
│   ├── UntrustedModelError *
│   ├── ModelInputError *
│   └── ModelOutputError *
├── ModelStoreError
│   └── ModelStoreAccessError *
├── StagingError
│   ├── StagingAccessError *
│   ├── BatchSupersededError *
│   ├── StagedFileGoneError
│   └── StagedFileDamagedError
├── ReportError
│   ├── RecipientsRefusedError
│   └── MailAccessError *
├── LedgerError
│   ├── LedgerAccessError *
│   ├── LedgerSchemaError *
│   ├── LedgerTakenError
│   └── LedgerGapError *
├── ConfirmationError *
├── ExportError
│   └── ExportAccessError *
├── HousekeepingError
├── ProducerError
└── TrainingError *

Errors with a * are permanent: a retry cannot help, so the task fails at once, without its retries.
A message names the value that is wrong and what to do. It never contains payment data or secrets.
"""

from __future__ import annotations


class FraudError(Exception):
    """Base class. `permanent` is True if a retry cannot help."""

    permanent = False


class SettingError(FraudError):
    """A setting is missing or invalid."""

    permanent = True


class RunConfigurationError(FraudError):
    """A DAG run was triggered with an invalid configuration."""

    permanent = True


class ClusterError(FraudError):
    """Kafka rejected a request or did not answer."""


class ClusterAccessError(ClusterError):
    """Kafka rejected the user name or password, or its certificate is not trusted."""

    permanent = True


class GroupInUseError(ClusterError):
    """A consumer is a member of our consumer group."""


class OffsetsChangedError(ClusterError):
    """Another program changed the group's committed offsets."""

    permanent = True


class TopicChangedError(ClusterError):
    """A topic was truncated or recreated."""

    permanent = True


class HangingTransactionError(ClusterError):
    """A Kafka transaction on our offsets stays open."""


class BrokerUnresponsiveError(ClusterError):
    """The group's coordinator does not answer."""


class ModelError(FraudError):
    """No model can score this batch."""

    permanent = True


class ModelNotFoundError(ModelError):
    """MLflow has no model that matches the request."""


class ModelRequirementsError(ModelError):
    """The model needs libraries that are not installed here."""


class UntrustedModelError(ModelError):
    """The model's files are outside the trusted locations, or could run code of their own."""


class ModelInputError(ModelError):
    """The model needs columns that the payments do not have."""


class ModelOutputError(ModelError):
    """The model's output is neither label nor probability, is ambiguous, or depends on other rows."""


class ModelStoreError(FraudError):
    """MLflow or its artifact store did not answer."""


class ModelStoreAccessError(ModelStoreError):
    """MLflow or its artifact store rejected the credentials."""

    permanent = True


class StagingError(FraudError):
    """A staged file cannot be written or read."""


class StagingAccessError(StagingError):
    """The staging area rejected the credentials."""

    permanent = True


class BatchSupersededError(StagingError):
    """A newer run has taken over the batch's payments."""

    permanent = True


class StagedFileGoneError(StagingError):
    """A staged file no longer exists."""


class StagedFileDamagedError(StagingError):
    """A staged file differs from what was written."""


class ReportError(FraudError):
    """A fraud report could not be built or sent."""


class RecipientsRefusedError(ReportError):
    """Reports were sent, but the server refused some of their recipients."""


class MailAccessError(ReportError):
    """The mail server rejected the login, or its certificate is not trusted."""

    permanent = True


class LedgerError(FraudError):
    """The ledger's database did not answer, or failed."""


class LedgerAccessError(LedgerError):
    """The database rejected the password, or the user lacks a right."""

    permanent = True


class LedgerSchemaError(LedgerError):
    """The ledger's tables are of another version."""

    permanent = True


class LedgerTakenError(LedgerError):
    """A newer recorder has taken over."""


class LedgerGapError(LedgerError):
    """Predictions expired before they were recorded."""

    permanent = True


class ConfirmationError(FraudError):
    """A verdict cannot be applied."""

    permanent = True


class ExportError(FraudError):
    """Confirmed payments could not be stored."""


class ExportAccessError(ExportError):
    """The export's storage rejected the credentials."""

    permanent = True


class HousekeepingError(FraudError):
    """Housekeeping could not remove something."""


class ProducerError(FraudError):
    """Payments could not be read from their source or delivered."""


class TrainingError(FraudError):
    """The training data cannot train a model."""

    permanent = True
