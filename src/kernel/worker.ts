/**
 * The kernel thread: one loop that waits in `epoll_wait` for requests (an eventfd that the main thread writes) and for
 * notifications (netlink sockets), and does everything synchronously.
 *
 * It never returns to Node's event loop while it works, so nothing here may be asynchronous: messages are fetched with
 * `receiveMessageOnPort`, and answers are posted, which needs no loop on this side.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { isWeftError, WeftError } from '../base/errors.ts';
import * as ffi from './ffi.ts';
import { closeHome } from './netns.ts';
import { isCallName, SyncKernel } from './sync-kernel.ts';
import type { KernelEvent } from './types.ts';

/** What the thread is started with. The main thread owns the eventfd. */
export interface WorkerSetup {
  /** Written by the main thread after each message, and to end the thread. */
  wakeFd: number;
  /** [0] is set to 1 to end the thread. */
  control: Int32Array;
  port: MessagePort;
}

export interface WorkerRequest {
  id: number;
  method: string;
  args: unknown[];
}

export type WorkerAnswer =
  | { id: number; result: unknown }
  | { id: number; error: ReturnType<WeftError['toJSON']> }
  | { watch: number; events: KernelEvent[] };

/** struct epoll_event is packed on x86-64 alone: u32 events, then u64 data at 4, elsewhere at 8. */
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = process.arch === 'x64' ? 4 : 8;
const MAX_EVENTS = 64;
/** Only a safeguard: a lost wake-up costs this, not for ever. */
const WAIT_MS = 30_000;
/** So long without anything to do after work, the thread tidies up. */
const TIDY_MS = 3000;

class Loop {
  readonly #setup: WorkerSetup;
  readonly #kernel: SyncKernel;
  readonly #epoll = ffi.check(ffi.libc.epollCreate(ffi.EPOLL_CLOEXEC), 'epoll_create1');
  /** Watches by the descriptor of their sockets. */
  readonly #ready = new Map<number, () => void>();

  constructor(setup: WorkerSetup) {
    this.#setup = setup;
    this.#kernel = new SyncKernel({
      post: (watch, events) => this.#post({ watch, events }),
      attach: (fd, ready) => {
        this.#ready.set(fd, ready);
        this.#control(ffi.EPOLL_CTL_ADD, fd);
      },
      detach: (fd) => {
        this.#ready.delete(fd);
        this.#control(ffi.EPOLL_CTL_DEL, fd);
      },
    });
    this.#control(ffi.EPOLL_CTL_ADD, setup.wakeFd);
  }

  #control(op: number, fd: number): void {
    const event = new Uint8Array(EVENT_SIZE);
    const view = new DataView(event.buffer);
    view.setUint32(0, ffi.EPOLLIN, true);
    view.setInt32(DATA_OFFSET, fd, true);
    ffi.check(ffi.libc.epollCtl(this.#epoll, op, fd, event), 'epoll_ctl');
  }

  run(): void {
    const events = new Uint8Array(EVENT_SIZE * MAX_EVENTS);
    const view = new DataView(events.buffer);
    const count = new BigUint64Array(1);
    let untidy = true;
    while (Atomics.load(this.#setup.control, 0) === 0) {
      const n = ffi.libc.epollWait(this.#epoll, events, MAX_EVENTS, untidy ? TIDY_MS : WAIT_MS);
      if (n < 0 && ffi.errno() !== ffi.EINTR) throw ffi.systemError('epoll_wait');
      if (n === 0 && untidy) tidy();
      untidy = n > 0;
      // Requests first: a pod waits for them, and nobody waits for an event.
      ffi.libc.read(this.#setup.wakeFd, count, 8);
      this.#serve();
      for (let i = 0; i < n; i++) this.#ready.get(view.getInt32(i * EVENT_SIZE + DATA_OFFSET, true))?.();
    }
  }

  #serve(): void {
    for (;;) {
      if (Atomics.load(this.#setup.control, 0) !== 0) return;
      const received = receiveMessageOnPort(this.#setup.port) as { message: WorkerRequest } | undefined;
      if (!received) return;
      const { id, method, args } = received.message;
      try {
        if (!isCallName(method)) throw new WeftError('WEFT_INTERNAL', `the kernel thread has no ${method}`);
        this.#post({ id, result: this.#kernel.call(method, args) });
      } catch (error) {
        this.#post({ id, error: toWeftError(error).toJSON() });
      }
    }
  }

  #post(answer: WorkerAnswer): void {
    this.#setup.port.postMessage(answer);
  }

  close(): void {
    this.#kernel[Symbol.dispose]();
    ffi.libc.close(this.#epoll);
    closeHome();
  }
}

/**
 * V8 collects garbage in an isolate's idle time, but never sees this thread idle: it waits inside of a call. So it is told
 * to, where Node runs with --expose-gc; and what malloc holds for the process goes back to the kernel.
 */
function tidy(): void {
  (globalThis as { gc?: () => void }).gc?.();
  ffi.libc.mallocTrim(0);
}

function toWeftError(error: unknown): WeftError {
  if (isWeftError(error)) return error;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new WeftError('WEFT_INTERNAL', text, { cause: error });
}

const loop = new Loop(workerData as WorkerSetup);
try {
  loop.run();
} finally {
  loop.close();
}
