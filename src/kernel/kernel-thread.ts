/** One kernel thread seen from the main thread: calls as promises, events as callbacks, and its death as an event. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { type ErrorCode, WeftError } from '../base/errors.ts';
import * as ffi from './ffi.ts';
import type { KernelEvent } from './types.ts';
import type { WorkerAnswer, WorkerRequest, WorkerSetup } from './worker.ts';

export interface ThreadEvents {
  onEvents(watch: number, events: KernelEvent[]): void;
  /** It ended without being told to; every call under way has been rejected with the same error. */
  onDeath(error: WeftError): void;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: WeftError): void;
}

/**
 * Threads that run. Node joins its workers when the process exits, and one that waits in `epoll_wait` has to be woken for
 * that, or the exit would hang.
 */
const running = new Set<KernelThread>();
process.on('exit', () => {
  for (const thread of running) thread.signalStop();
});

const one = BigUint64Array.of(1n);

export class KernelThread {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #control = new Int32Array(new SharedArrayBuffer(4));
  readonly #wakeFd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  readonly #events: ThreadEvents;
  #nextId = 1;
  #error: unknown;
  #alive = true;
  #holds = 0;

  constructor(name: string, events: ThreadEvents) {
    this.#events = events;
    this.#wakeFd = ffi.check(ffi.libc.eventfd(0, ffi.EFD_CLOEXEC | ffi.EFD_NONBLOCK), 'eventfd');
    const channel = new MessageChannel();
    this.#port = channel.port1;
    const setup: WorkerSetup = { wakeFd: this.#wakeFd, control: this.#control, port: channel.port2 };
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), {
      name,
      workerData: setup,
      execArgv: [], // the program's own options (--input-type, --test) are none of a worker's
      // What a call allocates is garbage when it has been answered; V8's 48 MB of room for it would all become resident.
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
      transferList: [channel.port2],
    });
    running.add(this);
    this.#port.on('message', (answer: WorkerAnswer) => this.#receive(answer));
    this.#worker.on('error', (error) => {
      this.#error = error;
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#end(code);
        resolve();
      });
    });
    // The process may end while the thread waits: only calls under way and open watches keep it.
    this.#worker.unref();
    this.#port.unref();
  }

  /** Calls that have not been answered. */
  get pending(): number {
    return this.#pending.size;
  }

  get alive(): boolean {
    return this.#alive;
  }

  call(method: string, args: unknown[]): Promise<unknown> {
    if (!this.#alive) return Promise.reject(died('it has ended'));
    const id = this.#nextId++;
    const request: WorkerRequest = { id, method, args };
    return new Promise((resolve, reject) => {
      this.#port.postMessage(request); // throws, and so rejects, for what cannot be cloned
      this.#pending.set(id, { resolve, reject });
      this.hold();
      this.#wake();
    });
  }

  /** Keep the process alive until {@link letGo}. */
  hold(): void {
    if (this.#holds++ === 0) this.#worker.ref(); // not the port: it closes before the worker's end is known
  }

  letGo(): void {
    if (--this.#holds === 0) this.#worker.unref();
  }

  /** Tell it to end, without waiting: safe in an exit handler. */
  signalStop(): void {
    Atomics.store(this.#control, 0, 1);
    this.#wake();
  }

  /** End it, and wait until it has. Calls that it has not come to are rejected. */
  async stop(): Promise<void> {
    this.#worker.ref();
    this.signalStop();
    await this.#ended;
  }

  /** End it in the middle of whatever it does, as a crash would. For tests. */
  async kill(): Promise<void> {
    const ended = this.#worker.terminate();
    this.#wake();
    await ended;
  }

  #wake(): void {
    // EAGAIN would mean a counter near 2^64: it is awake then.
    ffi.libc.write(this.#wakeFd, one, 8);
  }

  #receive(answer: WorkerAnswer): void {
    if ('watch' in answer) {
      this.#events.onEvents(answer.watch, answer.events);
      return;
    }
    const pending = this.#pending.get(answer.id);
    if (!pending) return;
    this.#pending.delete(answer.id);
    this.letGo();
    if ('error' in answer) pending.reject(WeftError.fromJSON(answer.error));
    else pending.resolve(answer.result);
  }

  #end(code: number): void {
    this.#alive = false;
    running.delete(this);
    const told = Atomics.load(this.#control, 0) !== 0;
    const reason = told
      ? 'it was told to end'
      : this.#error instanceof Error
        ? this.#error.message
        : `exit code ${code}`;
    const error = died(reason);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#port.close();
    ffi.libc.close(this.#wakeFd);
    if (!told) this.#events.onDeath(error);
  }
}

function died(reason: string): WeftError {
  const code: ErrorCode = 'WEFT_KERNEL_WORKER_DIED';
  return new WeftError(code, `the kernel thread is gone: ${reason}`);
}
