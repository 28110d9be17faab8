/** The suite's end of a probe: commands out, answers in. */
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Answer, Command, Endpoint, ProbeProcess } from './compliance.ts';

const PROGRAM = fileURLToPath(new URL('./testing/probe.ts', import.meta.url));

export class ProbeClient {
  /** Resolves when it listens; rejects when it ended before. */
  readonly ready: Promise<void>;
  readonly #process: ProbeProcess;
  readonly #name: string;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 1;

  constructor(endpoint: Endpoint, port: number) {
    this.#name = endpoint.name;
    this.#process = endpoint.spawn([process.execPath, PROGRAM, String(port)]);
    const ready = Promise.withResolvers<unknown>();
    this.#waiting.set(0, ready);
    this.ready = ready.promise.then(() => {});
    this.#process.stdin.on('error', () => {}); // an end point may go at any time
    const lines = createInterface({ input: this.#process.stdout });
    lines.on('line', (line) => this.#take(JSON.parse(line) as Answer));
    lines.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the probe at ${this.#name} ended`));
      this.#waiting.clear();
    });
  }

  ask(command: Command): Promise<unknown> {
    const id = this.#next++;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#process.stdin.write(`${JSON.stringify({ id, ...command })}\n`);
    return waiting.promise;
  }

  end(): void {
    this.#process.stdin.end();
    this.#process.kill();
  }

  #take(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('error' in answer) waiting?.reject(new Error(answer.error));
    else waiting?.resolve(answer.value);
  }
}
