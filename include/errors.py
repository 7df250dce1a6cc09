"""Every error this product raises on purpose.

FraudError
├── SettingError            a setting is missing or unusable                       (permanent)
├── RunConfigurationError   a DAG run was triggered with a wrong configuration     (permanent)
├── ClusterError            Kafka refused a request or did not answer
│   ├── ClusterAccessError  a wrong password, or a certificate that is not trusted     (permanent)
│   ├── GroupInUseError     a consumer is a member of our group
│   ├── OffsetsChangedError another program changed the group's offsets            (permanent)
│   ├── TopicChangedError   the topic was truncated or recreated                   (permanent)
│   ├── HangingTransactionError   a transaction stays open on our offsets
│   └── BrokerUnresponsiveError   the group's coordinator does not answer
├── ModelError              no model can score this batch                          (permanent)
│   ├── ModelNotFoundError  nothing matches what was asked for
│   ├── ModelRequirementsError   the model needs libraries that are not here
│   ├── UntrustedModelError its files lie where none are taken from, or could run code of their own
│   ├── ModelInputError     the model wants columns that payments do not have
│   └── ModelOutputError    the model's output is no label or probability, is ambiguous, or depends on other rows
├── ModelStoreError         MLflow or its artifact store did not answer
│   └── ModelStoreAccessError   wrong keys                                             (permanent)
├── StagingError            a staged file cannot be written or read
│   ├── StagingAccessError  wrong keys                                                 (permanent)
│   ├── BatchSupersededError a newer run has taken over the batch's payments        (permanent)
│   ├── StagedFileGoneError a staged file is not there any more
│   └── StagedFileDamagedError  it is not what was written
├── ReportError             a fraud report could not be built or sent
│   ├── RecipientsRefusedError   reports were sent, but not to all of their recipients
│   └── MailAccessError     a wrong password, or a certificate that is not trusted     (permanent)
├── LedgerError             the ledger's database did not answer, or failed
│   ├── LedgerAccessError   a wrong password, or a right that is missing               (permanent)
│   ├── LedgerSchemaError   its tables are of another version                          (permanent)
│   ├── LedgerTakenError    a newer recorder has taken over
│   └── LedgerGapError      predictions expired before they were recorded              (permanent)
├── ConfirmationError       a verdict that cannot be applied                           (permanent)
├── ExportError             confirmed payments could not be stored
│   └── ExportAccessError   wrong keys                                                 (permanent)
├── HousekeepingError       something could not be trimmed
├── ProducerError           payments could not be read from their source or delivered
└── TrainingError           the training data cannot train a model                 (permanent)

An error is permanent when trying again cannot help: the task then fails at once, without its retries.
Messages name the value that is wrong and what mends it. They never hold payment data or secrets.
"""

from __future__ import annotations


class FraudError(Exception):
    permanent = False


class SettingError(FraudError):
    permanent = True


class RunConfigurationError(FraudError):
    permanent = True


class ClusterError(FraudError):
    pass


class ClusterAccessError(ClusterError):
    permanent = True


class GroupInUseError(ClusterError):
    pass


class OffsetsChangedError(ClusterError):
    permanent = True


class TopicChangedError(ClusterError):
    permanent = True


class HangingTransactionError(ClusterError):
    pass


class BrokerUnresponsiveError(ClusterError):
    pass


class ModelError(FraudError):
    permanent = True


class ModelNotFoundError(ModelError):
    pass


class ModelRequirementsError(ModelError):
    pass


class UntrustedModelError(ModelError):
    pass


class ModelInputError(ModelError):
    pass


class ModelOutputError(ModelError):
    pass


class ModelStoreError(FraudError):
    pass


class ModelStoreAccessError(ModelStoreError):
    permanent = True


class StagingError(FraudError):
    pass


class StagingAccessError(StagingError):
    permanent = True


class BatchSupersededError(StagingError):
    permanent = True


class StagedFileGoneError(StagingError):
    pass


class StagedFileDamagedError(StagingError):
    pass


class ReportError(FraudError):
    pass


class RecipientsRefusedError(ReportError):
    pass


class MailAccessError(ReportError):
    permanent = True


class LedgerError(FraudError):
    pass


class LedgerAccessError(LedgerError):
    permanent = True


class LedgerSchemaError(LedgerError):
    permanent = True


class LedgerTakenError(LedgerError):
    pass


class LedgerGapError(LedgerError):
    permanent = True


class ConfirmationError(FraudError):
    permanent = True


class ExportError(FraudError):
    pass


class ExportAccessError(ExportError):
    permanent = True


class HousekeepingError(FraudError):
    pass


class ProducerError(FraudError):
    pass


class TrainingError(FraudError):
    permanent = True
