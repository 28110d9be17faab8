/** Counts of requests and watches; prom-client is loaded when somebody asks for them. */
export interface MetricSources {
  watches: () => number;
  revision: () => number;
}

const BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];

interface RequestCount {
  labels: { verb: string; resource: string; code: string };
  count: number;
}

export class Metrics {
  readonly #sources: MetricSources;
  readonly #requests = new Map<string, RequestCount>();
  readonly #buckets = new Array<number>(BUCKETS.length + 1).fill(0);
  #seconds = 0;

  constructor(sources: MetricSources) {
    this.#sources = sources;
  }

  observe(verb: string, resource: string, code: number, seconds: number): void {
    const key = `${verb} ${resource} ${code}`;
    const known = this.#requests.get(key);
    if (known) known.count++;
    else if (this.#requests.size < 1000)
      this.#requests.set(key, { labels: { verb, resource, code: String(code) }, count: 1 });
    if (verb === 'watch') return;
    const at = BUCKETS.findIndex((bound) => seconds <= bound);
    this.#buckets[at < 0 ? BUCKETS.length : at]! += 1;
    this.#seconds += seconds;
  }

  async text(): Promise<{ text: string; contentType: string }> {
    const { Counter, Gauge, Registry } = await import('prom-client');
    const registry = new Registry();
    const requests = new Counter({
      name: 'apiserver_request_total',
      help: 'Requests by verb, resource and HTTP code.',
      labelNames: ['verb', 'resource', 'code'],
      registers: [registry],
    });
    for (const { labels, count } of this.#requests.values()) requests.inc(labels, count);
    const gauge = (name: string, help: string, value: number): void =>
      new Gauge({ name, help, registers: [registry] }).set(value);
    gauge('apiserver_longrunning_requests', 'Watches being served.', this.#sources.watches());
    gauge('weft_store_revision', 'Newest revision of the store.', this.#sources.revision());
    gauge('process_resident_memory_bytes', 'Resident memory.', process.memoryUsage.rss());
    return { text: `${await registry.metrics()}${this.#durations()}`, contentType: registry.contentType };
  }

  /** A histogram cannot be filled from counts by prom-client: its text form is written here. */
  #durations(): string {
    const name = 'apiserver_request_duration_seconds';
    const lines = [
      `# HELP ${name} Seconds until a request was answered, watches excepted.`,
      `# TYPE ${name} histogram`,
    ];
    let sum = 0;
    for (const [i, count] of this.#buckets.entries()) {
      sum += count;
      lines.push(`${name}_bucket{le="${BUCKETS[i] ?? '+Inf'}"} ${sum}`);
    }
    lines.push(`${name}_sum ${this.#seconds}`, `${name}_count ${sum}`, '');
    return lines.join('\n');
  }
}
