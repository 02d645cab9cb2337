<?php

/** A job of cron's: handles what has come since last time, and ends. */
declare(strict_types=1);

require __DIR__ . '/../../client/php/autoload.php';

$client = new Longline\Client(getenv('LONGLINE_URL'), getenv('LONGLINE_TOKEN'));
$client->subscriptions()->create('example-cron', ['channels' => ['acct-42'], 'start' => 'earliest']);
$handled = $client->pull('example-cron', function (Longline\Event $event): void {
    echo "$event->subject: $event->type\n";
}, new Longline\Options(consumer: 'cron'))->run(untilEmpty: true);
echo "$handled handled\n";
