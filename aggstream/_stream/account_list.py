"""Which accounts a fleet has: a function of the program says so, and is asked again and again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import attrs

from aggstream._base.blocking_calls import CallNotMade, CallQueue, Job
from aggstream._base.deadline import nearest
from aggstream._base.secret import Secret
from aggstream._base.service_checks import check_account
from aggstream._base.stacks import place_of
from aggstream.errors import AggStreamError, ConfigurationError
from aggstream.tokens._providers import checked_token
from aggstream.typing import TokenSource

logger = logging.getLogger("aggstream.stream")


def _name(_: object, __: object, value: str) -> None:
    check_account(value)


def _token(value: TokenSource | Secret | None) -> TokenSource | Secret | None:
    return checked_token(value) if isinstance(value, str) else value


def _user_id(_: object, __: object, value: str | None) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError("user_id must be a text that is not empty, or None")


@attrs.frozen
class Account:
    """One signed-in user of the application.

    Raises:
        ConfigurationError: the name or the user's id cannot be used.
    """

    name: str = attrs.field(validator=_name)
    """The application's own name for the user: 1 to 255 characters on one line. Each event tells it in `account`,
    and the journal keeps events under it, so it should stay the same."""
    token: TokenSource | Secret | None = attrs.field(default=None, repr=False, converter=_token)
    """The user's access token, or a function or a `TokenProvider` that returns one; None: the fleet's `token`
    function is called with the name. A text is kept as a secret, which no `repr` shows."""
    user_id: str | None = attrs.field(default=None, validator=_user_id)
    """The AGG user whose token it must be; None: the first one who is signed in."""


class AccountList:
    """Asks the function in time. It belongs to the I/O thread; the function runs on a thread that may block."""

    def __init__(
        self,
        ask: Callable[[], object] | None,
        apply: Callable[[Sequence[Account]], None],
        calls: CallQueue,
        *,
        every: float,
        timeout: float,
        name: str,
    ) -> None:
        """Ask at the first step.

        Args:
            ask: returns the accounts; None: there is nothing to ask.
            apply: makes the fleet have just these accounts. It is called where `ask` is.
            calls: makes the calls.
            every: seconds between two calls.
            timeout: seconds that a call may take.
            name: begins the log lines.
        """
        self.problem: str | None = None
        """Why the accounts are those of an earlier answer; None if the last answer could be used."""
        self._ask = ask
        self._apply = apply
        self._calls = calls
        self._every = every
        self._timeout = timeout
        self._name = name
        self._job: Job[None] | None = None
        self._at = 0.0
        self._is_wanted = False

    @property
    def is_fixed(self) -> bool:
        """True if there is no function to ask."""
        return self._ask is None

    def refresh(self) -> None:
        """Have the function asked as soon as possible; for any thread, which then wakes the I/O thread."""
        self._is_wanted = True

    def stop(self) -> None:
        """Ask no more."""
        self._ask = None
        if self._job is not None:
            self._job.leave()
            self._job = None

    def step(self, now: float) -> float | None:
        """Ask if it is time to; look at the answer. Return when to be called again, in monotonic seconds."""
        if self._ask is None:
            return None
        job = self._job
        if job is not None and (job.done or job.check(self._timeout)):
            self._job = None
            self._take(job)
        if self._job is None and (self._is_wanted or now >= self._at):
            self._is_wanted = False
            self._at = now + self._every * random.uniform(0.9, 1.0)
            self._job = self._calls.submit(self._call)
        return nearest(self._at, None if self._job is None else self._job.deadline(self._timeout))

    def _take(self, job: Job[None]) -> None:
        if not job.done:
            job.leave()
            self._failed(f"the function has not returned within {self._timeout:g} s")
            return
        try:
            job.result()
        except (AggStreamError, CallNotMade) as error:
            self._failed(str(error))
        except Exception as error:  # it is the program's, and its text may hold a secret
            self._failed(f"the function failed with {type(error).__name__} at {place_of(error)}")
        else:
            if self.problem is not None:
                logger.info("%s: the list of accounts is up to date again", self._name)
            self.problem = None

    def _failed(self, why: str) -> None:
        if self.problem is None:  # the repetitions are no news
            logger.error("%s: the list of accounts is not up to date, and all accounts stay: %s", self._name, why)
        self.problem = why

    # --- on a thread that may block ---------------------------------------------------------------------

    def _call(self) -> None:
        assert self._ask is not None
        accounts = checked_accounts(self._ask())
        if not accounts:
            raise ConfigurationError("there is no account in the answer, which would end the streams of all")
        self._apply(accounts)


def checked_accounts(answer: object) -> list[Account]:
    """Return accounts as a list. A text stands for an account of this name.

    Raises:
        ConfigurationError: it is no iterable of accounts, or two have one name.
    """
    if answer is None or isinstance(answer, (str, bytes, Account)):
        raise ConfigurationError(f"the accounts must be an iterable of Account, got {type(answer).__name__}")
    accounts: list[Account] = []
    try:
        entries = list(answer)  # type: ignore[call-overload]
    except TypeError:
        raise ConfigurationError(
            f"the accounts must be an iterable of Account, got {type(answer).__name__}"
        ) from None
    for entry in entries:
        account = Account(entry) if isinstance(entry, str) else entry
        if not isinstance(account, Account):
            raise ConfigurationError(f"each account must be an Account or its name, got {type(entry).__name__}")
        accounts.append(account)
    names = {account.name for account in accounts}
    if len(names) < len(accounts):
        twice = next(account.name for at, account in enumerate(accounts) if account.name in _names(accounts[:at]))
        raise ConfigurationError(f"two accounts have the name {twice!a}")
    return accounts


def _names(accounts: Sequence[Account]) -> set[str]:
    return {account.name for account in accounts}
