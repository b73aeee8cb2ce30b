"""Refusals in CloudStack's own numbers and words (`ApiErrorCode`, `CSExceptionErrorCode`)."""

from __future__ import annotations

UNAUTHORIZED = 401
METHOD_NOT_ALLOWED = 405
THROTTLED = 429
MALFORMED = 430
PARAMETER = 431
UNSUPPORTED = 432
INTERNAL = 530
ACCOUNT_ERROR = 531
RESOURCE_UNAVAILABLE = 534

CS_RUNTIME = 4250
CS_INVALID_VALUE = 4350
CS_PERMISSION = 4365
CS_API = 9999


class ApiError(Exception):
    """A refusal; before the job exists it is the answer, inside a job it becomes the job's result.

    `cserrorcode` is None where CloudStack sends none.
    """

    def __init__(self, errorcode: int, text: str, cserrorcode: int | None = CS_API) -> None:
        super().__init__(text)
        self.errorcode = errorcode
        self.text = text
        self.cserrorcode = cserrorcode


def missing_parameter(command: str, name: str) -> ApiError:
    return ApiError(PARAMETER, f"Unable to execute API command {command.lower()} due to missing parameter {name}")


def invalid_entity(command: str, name: str, value: str) -> ApiError:
    return ApiError(
        PARAMETER,
        f"Unable to execute API command {command.lower()} due to invalid value. Invalid parameter {name} value={value}"
        " due to incorrect long value format, or entity does not exist or due to incorrect parameter annotation for the"
        " field in api cmd class.",
    )


def invalid_value(command: str, name: str, value: str) -> ApiError:
    return ApiError(
        PARAMETER,
        f"Unable to execute API command {command.lower()} due to invalid value. Parameter {name} value={value} could"
        " not be parsed",
    )


def refused(text: str) -> ApiError:
    """`InvalidParameterValueException`: 431, nothing was changed."""
    return ApiError(PARAMETER, text, CS_INVALID_VALUE)


def failed(text: str) -> ApiError:
    """`CloudRuntimeException` and other surprises of the execution: 530."""
    return ApiError(INTERNAL, text, CS_RUNTIME)


def not_allowed(account: str, owner: str) -> ApiError:
    """`PermissionDeniedException`: the entity is another account's."""
    text = f"Acct[{account}] does not have permission to operate with resource Acct[{owner}]"
    return ApiError(ACCOUNT_ERROR, text, CS_PERMISSION)


def unavailable(command: str, user_id: str) -> ApiError:
    """The role of this key may not call the command."""
    text = f"The given command:{command} does not exist or it is not available for user with id:{user_id}"
    return ApiError(UNSUPPORTED, text)


def unauthorized() -> ApiError:
    """One text for a bad signature, an expired request, an unknown key and an unknown command."""
    return ApiError(UNAUTHORIZED, "unable to verify user credentials and/or request signature", None)
