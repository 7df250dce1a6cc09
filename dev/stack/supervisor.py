"""Start the parts in the order of their needs, watch them, run requests, and end all of them in every case."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

from filelock import Timeout

from dev.stack import processes
from dev.stack.home import StackHome, is_free
from dev.stack.part import without_proxy
from dev.stack.parts import PARTS, parts_of
from dev.stack.running_part import TICK, RunningPart
from dev.stack.stack_errors import StackError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """Signal that the stack has to end: a signal arrived, or the parent died."""


class Supervisor:
    """Run the parts of one stack. There is one supervisor for each folder."""

    def __init__(
        self, home: StackHome, names: Iterable[str], say: Callable[[str], None], stopped: Container[str] = ()
    ) -> None:
        """Take the folder, the names of the parts, and a function that prints progress.

        Parts of `stopped` belong to the stack, but run only once `start` is called for them.
        """
        self._home = home
        self._say = say
        self._services = {name: RunningPart(PARTS[name], "stopped" if name in stopped else "waiting") for name in names}
        self._ending = threading.Event()
        self._spawning = threading.Lock()
        self._changed = threading.Condition()
        self._failure: StackError | None = None
        self._ready = False

    def run(self, *, parent: int | None, background: bool) -> int:
        """Run the stack until a signal or the parent's end. Return 1 if a part was dead then, else 0.

        In the background, the parent may end once the stack is up. Raises StackError if a part cannot start or the
        folder's stack is already up.
        """
        lock = self._take_lock()
        watched = parent
        with lock:
            for number in SIGNALS:
                signal.signal(number, _stop)
            os.environ.update(without_proxy())
            try:
                (self._home.run / "state.json").unlink(missing_ok=True)
                (self._home.run / "request.json").unlink(missing_ok=True)
                processes.kill(self._home)  # of a killed supervisor
                self._home.create(name for part in parts_of(self._home.options).values() for name in part.ports)
                self._check_ports()
                self._start_all(watched)
                self._write_environment()
                self._ready = True
                self._write_state()
                watched = None if background else watched
                while True:
                    self._tick(watched)
            except StopRequested:
                return int(any(service.state == "dead" for service in self._services.values()))
            finally:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                self._end()

    def _take_lock(self) -> AbstractContextManager[object]:
        """Return the supervisor's lock. Other processes hold it for a moment when they test it."""
        try:
            return self._home.lock().acquire(timeout=1)
        except Timeout:
            raise StackError("stack", f"already up in {self._home.path}") from None

    def _check_ports(self) -> None:
        for name, service in self._services.items():
            for port_name in service.part.ports:
                self._check_port(name, port_name)

    def _check_port(self, part: str, port_name: str) -> None:
        if not is_free(self._home.port(port_name)):
            kept = self._home.path / "ports.json"
            problem = f"port {self._home.address(port_name)} is in use by another process"
            raise StackError(part, f"{problem}: end it, or change {port_name} in {kept}", self._home.log(part))

    def _start_all(self, parent: int | None) -> None:
        waiting = [service for service in self._services.values() if service.state == "waiting"]
        threads = [threading.Thread(target=self._bring_up, args=(service,), daemon=True) for service in waiting]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            _check_parent(parent)
            time.sleep(TICK)
            if self._failure:
                break
        if self._failure:
            raise self._failure

    def _bring_up(self, service: RunningPart) -> None:
        """Start one part in its own thread, once the parts that it needs are up."""
        needs = [self._services[need] for need in service.part.needs]
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._ending.is_set() or all(need.state == "up" for need in needs))
            if not self._ending.is_set():
                self._start(service)
        except StackError as error:
            self._fail(error)
        except OSError as error:
            problem = f"cannot start: {error.strerror or error} ({error.filename or 'no file'})"
            self._fail(StackError(service.part.name, problem, self._home.log(service.part.name)))
        except Exception as error:
            name = service.part.name
            self._fail(StackError(name, f"{type(error).__name__}: {error}".splitlines()[0], self._home.log(name)))

    def _fail(self, error: StackError) -> None:
        if not self._ending.is_set():
            self._failure = self._failure or error

    def _start(self, service: RunningPart) -> None:
        part, name = service.part, service.part.name
        began = time.monotonic()
        self._set(service, "starting")
        part.prepare(self._home, lambda text: self._say(f"{name:<14} {text}"))
        with self._spawning:
            if self._ending.is_set():
                return
            service.spawn(self._home)
            self._write_state()
        service.await_health(self._home, began, self._ending)
        part.set_up(self._home)
        self._set(service, "up")
        address = self._home.address(part.ports[0]) if part.ports else "-"
        self._say(f"{name:<14} {address:<17} {time.monotonic() - began:5.1f} s")

    def _tick(self, parent: int | None) -> None:
        _check_parent(parent)
        for service in self._services.values():
            code = service.exit_code()
            if code is not None and service.state == "up" and not service.stopping:
                self._set(service, "dead")
                log = self._home.log(service.part.name)
                self._say(str(StackError(service.part.name, f"the process ended with exit code {code}", log)))
        request = self._home.run / "request.json"
        if request.exists():
            self._answer(json.loads(request.read_text()))
            request.unlink()
        time.sleep(TICK)

    def _answer(self, request: dict[str, str]) -> None:
        """Stop or start one part."""
        service = self._services[request["part"]]
        error = ""
        if request["action"] == "stop":
            service.stopping = True
            self._end_services([service])
            self._set(service, "stopped")
        elif service.state != "up":
            processes.kill(self._home, [service.part.name])  # its first process may have died alone
            try:
                for port_name in service.part.ports:
                    self._check_port(service.part.name, port_name)
                self._start(service)
            except (StackError, OSError) as problem:
                self._set(service, "dead")
                error = str(problem)
        self._home.write_reply({"id": request["id"], "error": error})

    def _end(self) -> None:
        with self._spawning:
            self._ending.set()
        with self._changed:
            self._changed.notify_all()
        self._home.environment_file.unlink(missing_ok=True)
        remaining = [service for service in self._services.values() if service.state != "waiting"]
        while remaining:
            needed = {need for service in remaining for need in service.part.needs}
            last = [service for service in remaining if service.part.name not in needed]
            self._end_services(last)
            remaining = [service for service in remaining if service not in last]
        processes.kill(self._home)
        (self._home.run / "state.json").unlink(missing_ok=True)

    def _end_services(self, services: list[RunningPart]) -> None:
        processes.end(self._home, {service.part.name: service.part.stop_signal for service in services})
        for service in services:
            service.exit_code()
            service.part.clean_up(self._home)

    def _set(self, service: RunningPart, state: str) -> None:
        with self._changed:
            service.state = state
            self._changed.notify_all()
        self._write_state()

    def _write_state(self) -> None:
        if self._ending.is_set():
            return
        parts: dict[str, Any] = {
            name: {
                "state": service.state,
                "pid": service.process.pid if service.process else None,
                "address": self._home.address(service.part.ports[0]) if service.part.ports else "-",
            }
            for name, service in self._services.items()
        }
        with self._changed:
            self._home.write_state({"ready": self._ready, "parts": parts})

    def _write_environment(self) -> None:
        exports = {name: os.environ[name] for name in without_proxy()}
        for service in self._services.values():
            exports.update(service.part.exports(self._home))
        self._home.write_environment(exports)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:  # a second signal would interrupt the stopping
        signal.signal(each, signal.SIG_IGN)
    raise StopRequested


def _check_parent(parent: int | None) -> None:
    if parent is not None and os.getppid() != parent:
        raise StopRequested
