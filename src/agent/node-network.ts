/**
 * From the table of nodes to this node's kernel: compile the fabric, bring links and filter to what it says, and again
 * whenever a node, the underlay or somebody else's hand changes something.
 *
 * Nothing in the kernel is touched before the API has been heard in full: an agent that starts while the API is away
 * leaves what it finds as it is, and traffic goes on.
 */
import type { AgentConfig } from '../api/config.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatNetObject } from '../base/net-object-text.ts';
import { POD_LINK_GROUP } from '../base/net-objects.ts';
import { type Drift, LinkReconciler } from '../datapath/links/link-reconciler.ts';
import { composeWithForeign } from '../datapath/nftables/compose-with-foreign.ts';
import { NodeFilterReconciler } from '../datapath/nftables/reconcile.ts';
import { FabricCompiler } from '../fabric/compiler.ts';
import { NODE_FEATURES, orMissingFeature } from '../kernel/require-features.ts';
import type { Kernel, KernelEvent, KernelFeatures } from '../kernel/types.ts';
import type { FabricNode, FabricPlan, FabricProblem } from '../state/fabric-plan.ts';
import type { ReadTable } from '../state/table.ts';
import { Loop } from './loop.ts';
import type { Metrics } from './metrics.ts';
import { findUnderlay, type UnderlayView } from './underlay.ts';

/** How often everything is compared in full although nothing seemed to change, milliseconds. */
const AUDIT_MS = 60_000;
/** Time for an editor of our objects to finish before we look, milliseconds. */
const SETTLE_MS = 20;
/** How long a fault of the fabric stands before it is told, milliseconds. */
const PROBLEM_MS = 3000;

export interface NodeNetworkOptions {
  kernel: Kernel;
  config: AgentConfig;
  /** Every node, this one included, in the fabric's form. */
  nodes: ReadTable<FabricNode>;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** Something of ours was changed by somebody else, and has been put right. */
  onDrift: (drift: NamedDrift) => void;
  /** A fault of the fabric that did not pass by itself: once each. */
  onProblem: (problem: FabricProblem) => void;
  /** Something stands in the way, and what to do about it: the reason of an Event, and its message. */
  onFault: (reason: 'NetworkIncomplete' | 'RouteShadowed' | 'ForeignFirewall', message: string) => void;
  /** The underlay's addresses are now these. */
  onUnderlay: (view: UnderlayView) => void;
  /** A plan is in the kernel. */
  onPlan: (plan: FabricPlan) => void;
}

export interface NamedDrift {
  /** What kind of object, for metrics: `route`, `link`, `nftables`, … */
  kind: string;
  /** What had changed, and by whom as far as the kernel tells. */
  message: string;
}

export class NodeNetwork {
  readonly #options: NodeNetworkOptions;
  readonly #links: LinkReconciler;
  readonly #filter: NodeFilterReconciler;
  readonly #loop: Loop;
  readonly #closed = new AbortController();
  #compiler: FabricCompiler | undefined;
  #context = '';
  #underlay: UnderlayView | undefined;
  #underlayChanged = true;
  #changed = new Set<string>();
  /** Faults that stand, by their text: since when, and whether they were told. */
  #problems = new Map<string, { since: number; told: boolean }>();
  #foreign = '';
  #subscription: Disposable | undefined;
  /** Who last touched our nft table, for the drift that the next audit may find. */
  #lastNftActor = '';
  #auditFilter = true;
  /** When links were last compared in full, and the sysctls that were applied then. */
  #comparedAt = Number.NEGATIVE_INFINITY;
  #sysctls = '';
  #features: Promise<KernelFeatures> | undefined;

  constructor(options: NodeNetworkOptions) {
    this.#options = options;
    const { kernel, logger, clock } = options;
    this.#links = new LinkReconciler({
      kernel,
      ns: '',
      logger,
      clock,
      onDrift: (drifts) => {
        for (const drift of drifts) this.#reportLink(drift);
      },
      onStatus: (failures) => {
        for (const { key, message } of failures) options.onFault('NetworkIncomplete', `${key}: ${message}`);
      },
    });
    this.#filter = new NodeFilterReconciler(kernel, '', logger);
    this.#loop = new Loop({
      clock,
      settleMs: SETTLE_MS,
      periodMs: AUDIT_MS,
      pass: () => this.#pass(),
      onError: (error, attempt) =>
        logger.error({ err: messageOf(error), attempt }, 'the node network could not be brought up to date'),
    });
  }

  /** Begin; the table must hold the whole cluster by now. */
  start(): void {
    this.#subscription = this.#options.nodes.subscribe(
      (changes) => {
        for (const { key } of changes) this.#changed.add(key);
        this.#loop.trigger();
      },
      { initial: true },
    );
    this.#loop.start();
    this.#loop.trigger();
  }

  /** Empty once the network of this node is as desired; else why not. */
  get notReady(): string[] {
    if (this.#loop.lastError) return [`the node network: ${this.#loop.lastError}`];
    if (this.#loop.passes === 0) return ['the node network has not been set up yet'];
    return [];
  }

  /** Resolves when a pass that began after this call has succeeded. */
  settled(): Promise<void> {
    return this.#loop.next();
  }

  handleEvents(events: KernelEvent[]): void {
    for (const event of events) {
      if (event.type === 'resync') {
        this.#comparedAt = Number.NEGATIVE_INFINITY;
        this.#underlayChanged = true;
        this.#auditFilter = true;
        this.#loop.trigger();
      } else if (event.type === 'nft') {
        if (event.own) continue;
        this.#foreign = ''; // foreign rules may have appeared: look again
        if (event.tables.some((name) => /\bweft/.test(name))) {
          this.#lastNftActor = event.by ? ` by ${event.by.name ?? 'a process'} (pid ${event.by.pid})` : '';
          this.#auditFilter = true;
        }
        this.#loop.trigger();
      } else if (event.type !== 'sysctl' && this.#concernsUnderlay(event)) {
        this.#underlayChanged = true;
        this.#loop.trigger();
      }
    }
    this.#links.handleEvents(events);
  }

  #concernsUnderlay(event: Extract<KernelEvent, { type: 'new' | 'delete' }>): boolean {
    const { object } = event;
    if (event.own) return false;
    if (object.kind === 'link') return object.group !== POD_LINK_GROUP && !object.name.startsWith('weft');
    if (object.kind === 'address') return !object.dev.startsWith('weft');
    return object.kind === 'route' && (object.dst === '0.0.0.0/0' || object.dst === '::/0');
  }

  async #pass(): Promise<void> {
    const { metrics, clock } = this.#options;
    if (this.#underlayChanged) await this.#readUnderlay();
    const plan = this.#compile();
    if (!plan) return; // this node is not in the table yet: the change that brings it triggers a pass
    const began = clock.now();
    try {
      await this.#applyLinks(plan);
      if (this.#auditFilter) await this.#audit();
      const { changed } = await this.#filter.apply(plan.filter);
      metrics.operations.inc({ part: 'filter' }, changed.length);
      await this.#compose();
    } catch (error) {
      metrics.syncSeconds.observe((clock.now() - began) / 1000, { part: 'node', result: 'error' });
      throw await this.#explained(error);
    }
    metrics.syncSeconds.observe((clock.now() - began) / 1000, { part: 'node', result: 'ok' });
    metrics.nodes.set(this.#options.nodes.size);
    metrics.fabricProblems.set(plan.problems.length);
    this.#tellProblems(plan.problems);
    this.#options.onPlan(plan);
  }

  /** An ENOENT of nft says little to whoever runs a kernel without a module. Probed once, when something fails. */
  async #explained(error: unknown): Promise<unknown> {
    const features = (): Promise<KernelFeatures> => (this.#features ??= this.#options.kernel.features());
    return await orMissingFeature({ features }, NODE_FEATURES, error);
  }

  /** A node that comes or goes costs what it is itself; everything is compared when the plan's ground changed, and in time. */
  async #applyLinks(plan: FabricPlan): Promise<void> {
    const { clock, metrics, onFault } = this.#options;
    const change = this.#compiler!.take();
    const whole =
      clock.now() - this.#comparedAt >= AUDIT_MS || this.#sysctls !== JSON.stringify(plan.sysctls);
    const report = whole
      ? await this.#links.apply(plan.objects, plan.sysctls)
      : await this.#links.patch(change);
    if (whole) {
      this.#comparedAt = clock.now();
      this.#sysctls = JSON.stringify(plan.sysctls);
    }
    metrics.operations.inc({ part: 'links' }, report.operations);
    for (const { route, by } of report.shadowed) {
      const why = `${formatNetObject(route)} is not used: ${formatNetObject(by)} wins`;
      onFault('RouteShadowed', why);
    }
  }

  async #readUnderlay(): Promise<void> {
    const { kernel, config } = this.#options;
    const objects = await kernel.dump('', ['link', 'address', 'route'], { table: 254 });
    const view = findUnderlay(objects, config.nodeIPs);
    this.#underlayChanged = false;
    if (JSON.stringify(view) === JSON.stringify(this.#underlay)) return;
    this.#underlay = view;
    this.#options.onUnderlay(view);
  }

  #compile(): FabricPlan | undefined {
    const { config, nodes } = this.#options;
    const self = nodes.get(config.nodeName);
    if (!self || !this.#underlay) return undefined;
    const context = {
      // The addresses this machine has are truer than what the API still says of them.
      self: { ...self, nodeIPs: this.#underlay.nodeIPs },
      underlays: this.#underlay.underlays,
      config,
    };
    const fingerprint = JSON.stringify([context.self, context.underlays]);
    if (!this.#compiler) {
      this.#compiler = new FabricCompiler(context);
      for (const key of nodes.keys()) this.#changed.add(key);
    } else if (fingerprint !== this.#context) this.#compiler.setContext(context);
    this.#context = fingerprint;
    for (const name of this.#changed) {
      const node = nodes.get(name);
      if (node) this.#compiler.upsert(node);
      else this.#compiler.remove(name);
    }
    this.#changed.clear();
    return this.#compiler.plan();
  }

  /** A node that joins has no address for a moment, one that changes has two: only what stays is worth an Event. */
  #tellProblems(problems: FabricProblem[]): void {
    const now = this.#options.clock.now();
    const standing = new Map<string, { since: number; told: boolean }>();
    let waiting = false;
    for (const problem of problems) {
      const state = this.#problems.get(problem.message) ?? { since: now, told: false };
      standing.set(problem.message, state);
      if (state.told) continue;
      if (now - state.since >= PROBLEM_MS) {
        state.told = true;
        this.#options.onProblem(problem);
      } else waiting = true;
    }
    this.#problems = standing;
    if (waiting)
      void this.#options.clock.sleep(PROBLEM_MS, this.#closed.signal).then(
        () => this.#loop.trigger(),
        () => {},
      );
  }

  /** Packets counted by the rules of the filter, by counter. */
  counters(): ReturnType<NodeFilterReconciler['counters']> {
    return this.#filter.counters();
  }

  /** Our table was, or may have been, touched by somebody else. */
  async #audit(): Promise<void> {
    this.#auditFilter = false;
    const by = this.#lastNftActor;
    this.#lastNftActor = '';
    for (const drift of await this.#filter.verify()) {
      this.#options.metrics.drift.inc({ kind: 'nftables' });
      this.#options.onDrift({ kind: 'nftables', message: `${drift.message}${by}; put right` });
    }
  }

  /** A foreign `drop` on forwarding is final in netfilter whatever we accept: ask for passage where it is meant to be asked. */
  async #compose(): Promise<void> {
    if (this.#foreign === 'looked') return;
    this.#foreign = 'looked';
    const { kernel, config, logger } = this.#options;
    const { added, messages } = await composeWithForeign(kernel, '', config.clusterCIDRs);
    if (added.length > 0) logger.info({ added }, 'asked a foreign firewall to let pods pass');
    for (const message of messages) this.#options.onFault('ForeignFirewall', message);
  }

  #reportLink(drift: Drift): void {
    const kind = drift.object?.kind ?? 'sysctl';
    this.#options.metrics.drift.inc({ kind });
    const by = drift.by ? ` by ${drift.by.name ?? 'a process'} (pid ${drift.by.pid})` : '';
    this.#options.onDrift({ kind, message: `${drift.message}${by}; put right` });
  }

  async close(): Promise<void> {
    this.#subscription?.[Symbol.dispose]();
    this.#closed.abort();
    await this.#loop.close();
    await this.#links.close();
    await this.#filter.close();
  }
}
