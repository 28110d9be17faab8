/** Events (core/v1) about pods: said once each, counted when repeated, and never in the way of the work they tell of. */
import { randomBytes } from 'node:crypto';
import { type ApiClient, EVENTS } from '../api/client.ts';
import { isNotFound } from '../api/errors.ts';
import type { Event, ObjectReference, Pod } from '../api/types.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

const REMEMBERED = 2000;

export class EventRecorder {
  readonly #client: ApiClient;
  readonly #log: Logger;
  readonly #component: string;
  /** What was said: its Event's name and count, the least recent first. */
  readonly #said = new Map<string, { name: string; count: number }>();
  #queue: Promise<void> = Promise.resolve();

  constructor(client: ApiClient, log: Logger, component: string) {
    this.#client = client;
    this.#log = log;
    this.#component = component;
  }

  about(
    pod: Pod,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    host = pod.spec.nodeName,
  ): void {
    const { name, namespace = 'default', uid, resourceVersion } = pod.metadata;
    const object: ObjectReference = {
      apiVersion: 'v1',
      kind: 'Pod',
      name,
      namespace,
      ...(uid && { uid }),
      ...(resourceVersion && { resourceVersion }),
    };
    const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    const key = JSON.stringify([uid, type, reason, message]);
    this.#queue = this.#queue
      .then(async () => {
        const said = this.#said.get(key);
        this.#said.delete(key);
        if (said) {
          said.count++;
          try {
            await this.#client.patch(
              EVENTS,
              { name: said.name, namespace },
              { count: said.count, lastTimestamp: now },
            );
            this.#said.set(key, said);
            return;
          } catch (error) {
            if (!isNotFound(error)) throw error; // it has expired: say it anew
          }
        }
        const event: Event = {
          apiVersion: 'v1',
          kind: 'Event',
          metadata: { name: `${name}.${randomBytes(8).toString('hex')}`, namespace },
          involvedObject: object,
          type,
          reason,
          message: message.slice(0, 1024),
          count: 1,
          firstTimestamp: now,
          lastTimestamp: now,
          source: { component: this.#component, ...(host && { host }) },
          reportingComponent: this.#component,
          ...(host && { reportingInstance: host }),
        };
        await this.#client.create(EVENTS, event);
        this.#said.set(key, { name: event.metadata.name, count: 1 });
        const oldest = this.#said.size > REMEMBERED ? this.#said.keys().next().value : undefined;
        if (oldest !== undefined) this.#said.delete(oldest);
      })
      .catch((error) => this.#log.debug({ reason, error: messageOf(error) }, 'an Event was not taken'));
  }

  /** Resolves when all that was said so far has been sent or given up. */
  async flush(): Promise<void> {
    await this.#queue;
  }
}
