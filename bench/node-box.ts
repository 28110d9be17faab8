/**
 * A machine for one contender: a network, mount and UTS namespace of its own, so that contenders neither meet nor slow each
 * other down, and the host's own network is never touched.
 *
 * The namespaces have no names. A helper process (node-box-helper.ts) lives in them, makes the pods' namespaces, and
 * executes plugins with the clock running; when it ends, however it ends, the namespaces and everything mounted in them are
 * gone.
 */
import type { ChildProcess } from 'node:child_process';
import path from 'node:path';
import { type Finished, type Scope, stop } from './scope.ts';
import type { Executed, Execution } from './spawn.ts';

export type HelperRequest =
  /** Network namespaces, each with `lo` up, bound at these paths. */
  { kind: 'netns'; paths: string[] } | { kind: 'execute'; executions: Execution[] };

export type HelperReply =
  | { kind: 'ready' }
  | { kind: 'done' }
  | { kind: 'executed'; results: Executed[] }
  | { kind: 'failed'; message: string };

const HELPER = path.join(import.meta.dirname, 'node-box-helper.ts');

export class NodeBox {
  /** A folder on disk, for the contender's files; the pods' namespaces lie in `<folder>/netns`, seen only inside. */
  readonly folder: string;
  readonly #scope: Scope;
  readonly #helper: ChildProcess;

  private constructor(scope: Scope, folder: string, helper: ChildProcess) {
    this.#scope = scope;
    this.folder = folder;
    this.#helper = helper;
  }

  static async open(scope: Scope, name: string): Promise<NodeBox> {
    const folder = scope.folder(name);
    const helper = scope.start(
      [
        ...['unshare', '--net', '--mount', '--uts', '--propagation', 'private', '--'],
        ...[process.execPath, '--disable-warning=ExperimentalWarning', HELPER, folder, name],
      ],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    const box = new NodeBox(scope, folder, helper);
    await box.#reply('ready');
    return box;
  }

  netnsPath(pod: number): string {
    return `${this.folder}/netns/pod-${pod}`;
  }

  /** Namespaces of pods 1 to `count`. */
  async makePods(count: number): Promise<void> {
    const paths = Array.from({ length: count }, (_, i) => this.netnsPath(i + 1));
    await this.#ask({ kind: 'netns', paths }, 'done');
  }

  /** One after the other, in the box, timed there. */
  async execute(executions: Execution[]): Promise<Executed[]> {
    return (await this.#ask({ kind: 'execute', executions }, 'executed')).results;
  }

  /** The argument list with which a program runs in the box. */
  enter(argv: string[]): string[] {
    return ['nsenter', '--target', String(this.#helper.pid), '--net', '--mount', '--uts', '--', ...argv];
  }

  async run(argv: string[], stdin?: string): Promise<Finished> {
    return await this.#scope.run(this.enter(argv), { ...(stdin !== undefined && { stdin }) });
  }

  start(argv: string[], log: number): ChildProcess {
    return this.#scope.start(this.enter(argv), { stdio: ['ignore', log, log] });
  }

  async close(): Promise<void> {
    await stop(this.#helper);
  }

  async #ask<K extends HelperReply['kind']>(
    request: HelperRequest,
    kind: K,
  ): Promise<Extract<HelperReply, { kind: K }>> {
    this.#scope.check();
    this.#helper.send(request);
    return await this.#reply(kind);
  }

  async #reply<K extends HelperReply['kind']>(kind: K): Promise<Extract<HelperReply, { kind: K }>> {
    const helper = this.#helper;
    const { signal } = this.#scope;
    const reply = await new Promise<HelperReply>((resolve, reject) => {
      const finish = (settle: () => void): void => {
        helper.off('message', onMessage).off('exit', onExit).off('error', onError);
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      const onMessage = (message: unknown): void => finish(() => resolve(message as HelperReply));
      const onExit = (): void => finish(() => reject(new Error('the helper process of a node ended')));
      const onError = (error: Error): void => finish(() => reject(error));
      const onAbort = (): void => finish(() => reject(signal.reason));
      helper.on('message', onMessage).on('exit', onExit).on('error', onError);
      signal.addEventListener('abort', onAbort);
      if (helper.exitCode !== null || helper.signalCode !== null) onExit();
    });
    if (reply.kind === 'failed') throw new Error(reply.message);
    if (reply.kind !== kind) throw new Error(`helper answered ${reply.kind}, not ${kind}`);
    return reply as Extract<HelperReply, { kind: K }>;
  }
}
