"""Which library reads the partition and writes the transaction: the setting `driver`."""

from schemas.errors import InvalidFieldError
from streams.kafka.connection import KafkaConnect
from streams.kafka.ports import Connect
from streams.kafka.settings import Settings


def connect_by(settings: Settings) -> Connect:
    """Return how an owner comes to its connection.

    Raises:
        InvalidFieldError: the driver is an extra that is not installed.
    """
    match settings.driver:
        case "aiokafka":
            return KafkaConnect(settings)
        case "librdkafka":
            try:
                from streams.kafka.librdkafka.connection import RdConnect  # noqa: PLC0415 - an extra
            except ImportError as error:
                allowed = f"aiokafka, or install stoploss[librdkafka] ({error})"
                raise InvalidFieldError("driver", settings.driver, allowed) from None
            return RdConnect(settings)
