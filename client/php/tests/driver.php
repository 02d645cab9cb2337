<?php

/**
 * The behaviour suite's driver: orders on stdin, what happens on stdout, one
 * JSON object a line; see docs/protocol.md, "For client authors". PHP pulls.
 */
declare(strict_types=1);

use Longline\Client;
use Longline\Delivery;
use Longline\Event;
use Longline\LonglineException;
use Longline\Options;
use Longline\Reject;

require __DIR__ . '/../autoload.php';

ini_set('error_log', '/dev/null');
$say = static function (string $told, array $more = []): void {
    fwrite(STDOUT, json_encode(['told' => $told] + $more) . "\n");
};

$handle = static function (Event $event, Delivery $delivery) use ($say): void {
    $say('begin', ['id' => $event->id, 'attempt' => $delivery->attempt, 'redelivered' => $delivery->redelivered, 'transport' => $delivery->transport]);
    $what = $event->data['do'] ?? '';
    if ($what === 'slow') {
        usleep($event->data['ms'] * 1000);
    }
    $outcome = match (true) {
        $what === 'reject' => 'rejected',
        $what === 'fail' && $delivery->attempt <= $event->data['times'] => 'failed',
        default => 'done',
    };
    $say('end', ['id' => $event->id, 'outcome' => $outcome]);
    if ($outcome === 'rejected') {
        throw new Reject('rejected by the story');
    }
    if ($outcome === 'failed') {
        throw new RuntimeException('failed by the story');
    }
};

$order = json_decode((string) fgets(STDIN), true);
$client = new Client($order['url'], static fn () => (string) file_get_contents($order['token_file']), minBackoff: 0.05, maxBackoff: 1.0);
$options = new Options(
    consumer: $order['consumer'] ?? '', wait: 2.0, min: 0.05,
    onGap: static fn (array $gap) => $say('gap', ['reason' => $gap['reason']]),
    onReject: static fn (Event $event) => $say('reject', ['id' => $event->id]),
);
try {
    $client->pull($order['subscription'], $handle, $options)->run();
    $say('ended', ['code' => '']);
} catch (LonglineException $error) {
    $say('ended', ['code' => $error->errorCode]);
}
