/**
 * Keeps one process running: starts it, or takes over the one that an earlier daemon started, and starts it again with back-off
 * when it ends. Its output goes to a file, so that it does not need its supervisor to live.
 */
import { backoffDelay } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { ended } from './pods/container.ts';
import {
  type DetachedOptions,
  isAlive,
  type ProcessId,
  signal,
  spawnDetached,
  startTimeOf,
} from './processes.ts';

export interface SupervisedOptions extends Omit<DetachedOptions, 'fds'> {
  argv: string[];
  /** Descriptors for the process, asked for at each start. */
  fds?: () => Promise<number[]>;
  /** The one that runs already. */
  adopt?: ProcessId | undefined;
  clock: Clock;
  logger: Logger;
}

/** A run of this length was no failure. */
const STEADY_MS = 10_000;

export class Supervised {
  readonly role: string;
  readonly #options: SupervisedOptions;
  readonly #abort = new AbortController();
  #current: ProcessId | undefined;
  restarts = 0;
  readonly #running: Promise<void>;

  constructor(options: SupervisedOptions) {
    this.role = options.role;
    this.#options = options;
    this.#running = this.#run();
  }

  get process(): ProcessId | undefined {
    return this.#current && isAlive(this.#current) ? this.#current : undefined;
  }

  async #run(): Promise<void> {
    const { clock, logger, role } = this.#options;
    const { signal: over } = this.#abort;
    let failures = 0;
    let adopt = this.#options.adopt;
    while (!over.aborted) {
      const began = clock.now();
      try {
        if (adopt && isAlive(adopt)) {
          this.#current = adopt;
          logger.info({ role, pid: adopt.pid }, 'taken over');
          await ended(adopt);
        } else await this.#start();
      } catch (error) {
        logger.error({ role, error: messageOf(error) }, 'cannot start');
      }
      adopt = undefined;
      if (over.aborted) return;
      failures = clock.now() - began > STEADY_MS ? 1 : failures + 1;
      this.restarts++;
      logger.warn({ role, log: this.#options.log }, 'ended; starting it again');
      await clock.sleep(backoffDelay(failures, { min: 50, max: 10_000 }), over).catch(() => {});
    }
  }

  async #start(): Promise<void> {
    const { argv, fds, role, logger, ...rest } = this.#options;
    const descriptors = (await fds?.()) ?? [];
    if (this.#abort.signal.aborted) return;
    const child = spawnDetached(argv, { ...rest, role, fds: descriptors });
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, name) => {
        logger.info({ role, pid: child.pid, code, signal: name }, 'ended');
        resolve();
      });
      const startTime = child.pid === undefined ? undefined : startTimeOf(child.pid);
      if (child.pid !== undefined && startTime !== undefined) {
        this.#current = { pid: child.pid, startTime };
        logger.info({ role, pid: child.pid }, 'started');
      }
    });
  }

  /** Leave the process as it is and look after it no more. */
  detach(): void {
    this.#abort.abort();
  }

  /** SIGTERM, SIGKILL after `graceMs`; resolves when it is gone. */
  async stop(graceMs: number): Promise<void> {
    this.#abort.abort();
    const current = this.process;
    if (!current) return;
    if (graceMs > 0) {
      signal(current, 'SIGTERM');
      const gone = ended(current);
      await Promise.race([gone, this.#options.clock.sleep(graceMs)]);
    }
    signal(current, 'SIGKILL');
    await ended(current);
    await this.#running;
  }
}
