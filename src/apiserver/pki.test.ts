import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { ensureCa, ensureServerCertificate, isExpiring, issueClient, writeKubeconfig } from './pki.ts';

const root = mkdtempSync(join(tmpdir(), 'weft-pki-'));
after(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const freshDir = (): string => join(root, String(++count));
const broken = (e: unknown) => isWeftError(e, 'WEFT_PKI_BROKEN');

describe('pki', () => {
  it('makes a CA once', async () => {
    const dir = freshDir();
    const ca = await ensureCa(dir);
    assert.deepEqual(await ensureCa(dir), ca);
    const certificate = new X509Certificate(ca.cert);
    assert.ok(certificate.ca);
    assert.ok(certificate.verify(certificate.publicKey));
    assert.equal(certificate.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
    assert.equal(isExpiring(ca.cert), false);
    for (const file of readdirSync(dir)) assert.equal(statSync(join(dir, file)).mode & 0o777, 0o600, file);
    assert.equal(statSync(dir).mode & 0o777, 0o700);
  });

  it('certifies the server for its names, anew when one is missing', async () => {
    const dir = freshDir();
    const ca = await ensureCa(dir);
    const first = await ensureServerCertificate(dir, ca, ['localhost', '127.0.0.1', 'fd00::1']);
    const certificate = new X509Certificate(first.cert);
    assert.ok(certificate.checkIssued(new X509Certificate(ca.cert)));
    assert.ok(certificate.checkHost('localhost'));
    assert.ok(certificate.checkIP('127.0.0.1') && certificate.checkIP('fd00::1'));
    assert.equal(certificate.ca, false);
    assert.deepEqual(await ensureServerCertificate(dir, ca, ['127.0.0.1']), first);
    const second = await ensureServerCertificate(dir, ca, ['127.0.0.1', 'other']);
    assert.notEqual(second.cert, first.cert);
    const otherCa = await ensureCa(freshDir());
    const third = await ensureServerCertificate(dir, otherCa, ['other']);
    assert.ok(new X509Certificate(third.cert).checkIssued(new X509Certificate(otherCa.cert)));
    assert.ok(new X509Certificate(third.cert).verify(new X509Certificate(otherCa.cert).publicKey));
  });

  it('issues clients with user and groups', async () => {
    const dir = freshDir();
    const pair = await issueClient(dir, { user: 'system:node:a', groups: ['system:nodes', 'b'] });
    const { subject } = new X509Certificate(pair.cert).toLegacyObject() as unknown as {
      subject: { CN: string; O: string[] };
    };
    assert.deepEqual({ ...subject }, { CN: 'system:node:a', O: ['system:nodes', 'b'] });
    assert.deepEqual(await issueClient(dir, { user: 'system:node:a', groups: ['b', 'system:nodes'] }), pair);
    const other = await issueClient(dir, { user: 'system:node:a', groups: ['system:nodes'] });
    assert.notEqual(other.cert, pair.cert);
  });

  it('calls a certificate expiring 60 days before its end', async () => {
    const { cert } = await issueClient(freshDir(), { user: 'u', groups: [] });
    const end = Date.parse(new X509Certificate(cert).validTo);
    const day = 24 * 3600 * 1000;
    assert.equal(isExpiring(cert, end - 61 * day), false);
    assert.equal(isExpiring(cert, end - 59 * day), true);
  });

  it('survives a start that was cut short, and names files that do not fit', async () => {
    const dir = freshDir();
    const ca = await ensureCa(dir);
    rmSync(join(dir, 'ca.crt'));
    const again = await ensureCa(dir);
    assert.notEqual(again.cert, ca.cert);
    writeFileSync(join(dir, 'ca.key'), ca.key);
    await assert.rejects(ensureCa(dir), broken);
    writeFileSync(join(dir, 'ca.crt'), 'nonsense');
    await assert.rejects(ensureCa(dir), broken);
    const leaf = freshDir();
    const client = await issueClient(leaf, { user: 'u', groups: [] });
    writeFileSync(join(leaf, 'ca.crt'), client.cert);
    writeFileSync(join(leaf, 'ca.key'), client.key);
    await assert.rejects(ensureCa(leaf), broken);
  });

  it('writes kubeconfigs', async () => {
    const dir = freshDir();
    const ca = await ensureCa(dir);
    const pair = await issueClient(dir, { user: 'u', groups: [] });
    const path = join(dir, 'deep', 'kubeconfig');
    writeKubeconfig(path, { server: 'https://127.0.0.1:1', ca: ca.cert, ...pair, namespace: 'x' });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const { parse } = await import('yaml');
    const config = parse(readFileSync(path, 'utf8'));
    assert.equal(config.clusters[0].cluster.server, 'https://127.0.0.1:1');
    assert.equal(Buffer.from(config.users[0].user['client-key-data'], 'base64').toString(), pair.key);
    assert.equal(config.contexts[0].context.namespace, 'x');
    assert.equal(config['current-context'], 'weft');
  });
});
