<?php

declare(strict_types=1);

use Longline\Client;
use Longline\Delivery;
use Longline\Event;
use Longline\LonglineException;
use Longline\Options;
use Longline\Reject;
use Longline\Token;

const GATEWAY_SECRET = 'the gateway and its tests share this secret';

/** A real gateway, which ends with the tests. Its binary is that of LONGLINE_BINARY. */
function gateway(): string
{
    static $url = null;
    if ($url) {
        return $url;
    }
    $binary = getenv('LONGLINE_BINARY') ?: throw new Exception('LONGLINE_BINARY names no gateway; make test-php builds one');
    $socket = stream_socket_server('tcp://127.0.0.1:0');
    $address = stream_socket_get_name($socket, false);
    fclose($socket);
    $dir = sys_get_temp_dir() . '/longline-php-' . bin2hex(random_bytes(4));
    mkdir($dir);
    $process = proc_open(
        [$binary, 'serve', '--listen', $address, '--admin-listen', '', '--broker', "embedded:$dir/data?fsync=everysec"],
        [1 => ['file', "$dir/log", 'w'], 2 => ['file', "$dir/log", 'w']],
        $pipes,
        env_vars: ['LONGLINE_JWT_SECRET' => GATEWAY_SECRET, 'HOME' => $dir],
    );
    register_shutdown_function(static function () use ($process, $dir): void {
        proc_terminate($process, 9);
        proc_close($process);
        exec('rm -rf ' . escapeshellarg($dir));
    });
    for ($end = microtime(true) + 20; !@file_get_contents("http://$address/readyz"); usleep(20_000)) {
        if (microtime(true) > $end) {
            throw new Exception('the gateway does not start: ' . file_get_contents("$dir/log"));
        }
    }
    return $url = "http://$address";
}

function client(): Client
{
    return new Client(gateway(), fn () => Token::mint(GATEWAY_SECRET, 'tester', ['**'], ['**'], ['*'], admin: true), minBackoff: 0.05);
}

function filled(string $name, int $n): Client
{
    $client = client();
    $client->subscriptions()->put($name, ['channels' => [$name], 'start' => 'earliest']);
    $client->publish($name, array_map(fn (int $i) => ['type' => 't', 'data' => $i], range(1, $n)));
    return $client;
}

function test_publishing(): void
{
    $client = client();
    $one = $client->publish('php.pub', ['type' => 'email.opened', 'id' => 'x', 'data' => ['n' => 1.0, 'ü' => '/']]);
    same($client->publish('php.pub', ['type' => 'email.opened', 'id' => 'x'])['duplicate'], true);
    same($client->channels()->read('php.pub', since: 'earliest')['events'][0]->data, ['n' => 1.0, 'ü' => '/']);
    same($one['id'], 'x');
    same($client->publish('php.pub', []), []);
    same(count($client->publish('php.many', array_fill(0, 2500, ['type' => 't']))), 2500);
    same(throws(LonglineException::class, fn () => $client->publish('php.pub', ['data' => 1]))->errorCode, 'bad_request');
    same(throws(LonglineException::class, fn () => $client->publish('php.pub', ['type' => 't', 'data' => NAN]))->errorCode, 'bad_request');
    same(throws(LonglineException::class, fn () => $client->publish('php.pub', ['type' => 't', 'data' => str_repeat('x', 300_000)]))->status, 413);
}

function test_errors_say_what_and_whether_to_try_again(): void
{
    $bad = throws(LonglineException::class, fn () => (new Client(gateway(), 'nonsense'))->subscriptions()->get('x'));
    same([$bad->errorCode, $bad->status, $bad->retry, $bad->requestId !== ''], ['unauthorized', 401, false, true]);
    same(throws(LonglineException::class, fn () => client()->subscriptions()->get('nowhere'))->errorCode, 'not_found');
    $away = throws(LonglineException::class, fn () => (new Client('http://127.0.0.1:9'))->subscriptions()->get('x'));
    same([$away->errorCode, $away->retry], ['connection', true]);
}

function test_administration(): void
{
    $s = client()->subscriptions();
    same($s->create('php.adm', ['channels' => ['php.adm'], 'start' => 'earliest']), true);
    same($s->create('php.adm', ['channels' => ['other']]), false);
    same($s->patch('php.adm', ['description' => 'hello'])['description'], 'hello');
    same(array_column(iterator_to_array($s->list(prefix: 'php.adm', limit: 1), false), 'name'), ['php.adm']);
    $cursors = array_column(client()->publish('php.adm', [['type' => 't', 'data' => 1], ['type' => 't', 'data' => 2]]), 'cursor');
    same(client()->channels()->get('php.adm')['head'], 2);
    $s->pause('php.adm');
    same($s->get('php.adm')['status']['state'], 'paused');
    $s->resume('php.adm');
    same($s->ack('php.adm', $cursors[1]), $cursors[1]);
    same($s->trace('php.adm', cursor: $cursors[0])['state'], 'acknowledged');
    same($s->resend('php.adm', [$cursors[0]]), 1);
    $s->seek('php.adm', $cursors[0]);
    same($s->get('php.adm')['cursor'], $cursors[0]);
    same(iterator_to_array($s->attempts('php.adm')), []);
    $s->clearDead('php.adm');
    same($s->dead('php.adm'), []);
    $s->delete('php.adm');
    same(throws(LonglineException::class, fn () => $s->get('php.adm'))->errorCode, 'not_found');
    client()->revoke(sub: 'nobody');
}

function test_a_job_of_crons_takes_what_there_is(): void
{
    $client = filled('php.cron', 250);
    $seen = [];
    $handler = function (Event $event, Delivery $delivery) use (&$seen): void {
        $seen[] = $event->data;
        if ($event->data === 7) {
            throw new Reject('seven');
        }
    };
    same($client->pull('php.cron', $handler)->run(untilEmpty: true), 250);
    same($seen, range(1, 250));
    $info = $client->subscriptions()->get('php.cron');
    same([$info['status']['state'], $info['status']['dead'], $info['status']['lag']['events']], ['offline', 1, 0]);
    same($client->subscriptions()->dead('php.cron')[0]['event']->data, 7);
    same($client->subscriptions()->redrive('php.cron'), 1);
}

function test_a_job_of_crons_leaves_what_fails_for_the_next_time(): void
{
    $client = filled('php.failing', 5);
    $fails = true;
    $handler = function (Event $event) use (&$fails): void {
        if ($fails && $event->data === 3) {
            throw new RuntimeException('away');
        }
    };
    same($client->pull('php.failing', $handler, new Options(min: 60))->run(untilEmpty: true), 4);
    same(str_ends_with($client->subscriptions()->get('php.failing')['cursor'], '-2'), true);
    $fails = false;
    $client->pull('php.failing', $handler)->run(untilEmpty: true);
    same(str_ends_with($client->subscriptions()->get('php.failing')['cursor'], '-5'), true);
}

function test_tokens_are_minted_with_hashes_and_where_sodium_is_with_eddsa(): void
{
    throws(InvalidArgumentException::class, fn () => Token::mint('short', 'x'));
    throws(InvalidArgumentException::class, fn () => Token::mint(GATEWAY_SECRET, 'x', algorithm: 'none'));
    foreach (['HS256', 'HS384', 'HS512'] as $algorithm) {
        $token = Token::mint(GATEWAY_SECRET, 'x', admin: true, algorithm: $algorithm);
        same(is_array((new Client(gateway(), $token))->request('GET', '/v1/nodes')), true, $algorithm);
    }
    if (function_exists('sodium_crypto_sign_keypair')) {
        $pair = sodium_crypto_sign_keypair();
        [$head, $claims, $signature] = explode('.', Token::mint(sodium_crypto_sign_secretkey($pair), 'x', algorithm: 'EdDSA'));
        same(sodium_crypto_sign_verify_detached(base64_decode(strtr($signature, '-_', '+/')), "$head.$claims", sodium_crypto_sign_publickey($pair)), true);
    }
}
